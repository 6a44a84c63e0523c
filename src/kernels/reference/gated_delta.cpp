#include <cmath>
#include <utility>
#include <vector>

#include "kernels/access.h"
#include "kernels/reference/reference.h"

namespace pennyweight::kernels::reference {

namespace {

using Doubles = std::vector<double>;

double dot(const double* a, const Doubles& b) {
  double sum = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    sum += a[i] * b[i];
  }
  return sum;
}

/// One head of one batch row, whose state S is [value_dim, key_dim].
class Head {
 public:
  Head(const GatedDeltaArgs& args, int64_t b, int64_t h)
      : args_(args),
        b_(b),
        h_(h),
        key_head_(h / (args.heads / args.key_heads)) {}

  Doubles start() const {
    return Doubles(size_t(args_.value_dim * args_.key_dim), 0.0);
  }

  Doubles query(int64_t t) const {
    return row_at(args_.q, args_.type, t, key_head_, args_.key_dim);
  }
  Doubles key(int64_t t) const {
    return row_at(args_.k, args_.type, t, key_head_, args_.key_dim);
  }
  Doubles value(int64_t t) const {
    return row_at(args_.v, args_.value_type, t, h_, args_.value_dim);
  }
  int64_t key_head() const {
    return key_head_;
  }
  /// Where token t's g and beta stand.
  int64_t gate(int64_t t) const {
    return (b_ * args_.length + t) * args_.heads + h_;
  }
  double g(int64_t t) const {
    const double own = args_.g[gate(t)];
    return corrects() ? own : std::exp(own);
  }
  /// What the state knows of the key is taken off the value.
  bool corrects() const {
    return args_.rule == ScanRule::delta;
  }
  double skip() const {
    return corrects() ? 0 : args_.skip[h_];
  }
  double beta(int64_t t) const {
    return args_.beta[gate(t)];
  }

  /// The state after token t, from the one before it.
  Doubles step(int64_t t, Doubles state) const {
    const auto k = key(t);
    const auto v = value(t);
    for (int64_t r = 0; r < args_.value_dim; ++r) {
      double* row = state.data() + r * args_.key_dim;
      const double known = corrects() ? g(t) * dot(row, k) : 0;
      const double error = v[size_t(r)] - known;
      for (int64_t i = 0; i < args_.key_dim; ++i) {
        row[i] = g(t) * row[i] + beta(t) * error * k[size_t(i)];
      }
    }
    return state;
  }

 private:
  Doubles row_at(
      const HeadsView& view,
      DType type,
      int64_t row,
      int64_t head,
      int64_t dim) const {
    const void* from = element_at(view, type, b_, row, head);
    Doubles values(static_cast<size_t>(dim));
    for (int64_t i = 0; i < dim; ++i) {
      values[size_t(i)] = load_at(from, type, i);
    }
    return values;
  }

  const GatedDeltaArgs& args_;
  int64_t b_, h_, key_head_;
};

void run_head(const GatedDeltaArgs& args, int64_t b, int64_t h) {
  const Head head(args, b, h);
  auto state = head.start();
  for (int64_t t = 0; t < args.length; ++t) {
    state = head.step(t, std::move(state));
    const auto q = head.query(t);
    const auto v = head.value(t);
    for (int64_t r = 0; r < args.value_dim; ++r) {
      const double y =
          dot(state.data() + r * args.key_dim, q) + head.skip() * v[size_t(r)];
      const int64_t to = head.gate(t) * args.value_dim + r;
      store_at(args.out, args.value_type, to, float(y));
    }
  }
}

/// Adds the head's part to `token`, the gradients of token t (see
/// GatedDeltaBackwardArgs), and turns `gradient`, which is by the state after
/// the token, into that by the state before it. The formulas stand in
/// simd/gated_delta_backward.cpp.
void step_back(
    const GatedDeltaBackwardArgs& args,
    const Head& head,
    int64_t h,
    int64_t t,
    const Doubles& before,
    const Doubles& after,
    Doubles& gradient,
    double* token) {
  const GatedDeltaArgs& f = args.forward;
  const auto k = head.key(t);
  const auto q = head.query(t);
  const auto v = head.value(t);
  const int64_t keys = f.key_heads * f.key_dim;
  double* dq = token + head.key_head() * f.key_dim;
  double* dk = dq + keys;
  double* dv = token + 2 * keys + h * f.value_dim;
  double* dg = token + 2 * keys + f.heads * f.value_dim + h;
  double* dbeta = dg + f.heads;
  const double g = head.g(t);
  double by_g = 0;
  for (int64_t r = 0; r < f.value_dim; ++r) {
    const double* s = before.data() + r * f.key_dim;
    double* d = gradient.data() + r * f.key_dim;
    const double dy =
        load_at(args.dy, f.value_type, head.gate(t) * f.value_dim + r);
    for (int64_t i = 0; i < f.key_dim; ++i) {
      d[i] += dy * q[size_t(i)];
      dq[i] += dy * after[size_t(r * f.key_dim + i)];
    }
    const double known = head.corrects() ? dot(s, k) : 0;
    const double error = v[size_t(r)] - g * known;
    const double ddelta = dot(d, k);
    // The gradient by the error, as far as the state is a part of it.
    const double by_error = head.beta(t) * ddelta;
    const double by_known = head.corrects() ? by_error : 0;
    dv[r] = by_error + head.skip() * dy;
    *dbeta += ddelta * error;
    by_g -= by_known * known;
    for (int64_t i = 0; i < f.key_dim; ++i) {
      dk[i] += d[i] * head.beta(t) * error - g * s[i] * by_known;
      by_g += d[i] * s[i];
      d[i] = g * (d[i] - by_known * k[size_t(i)]);
    }
  }
  *dg = head.corrects() ? by_g : g * by_g;
}

}  // namespace

void gated_delta(const GatedDeltaArgs& args) {
  for (int64_t b = 0; b < args.batch; ++b) {
    for (int64_t h = 0; h < args.heads; ++h) {
      run_head(args, b, h);
    }
  }
}

void gated_delta_backward(const GatedDeltaBackwardArgs& args) {
  const GatedDeltaArgs& f = args.forward;
  const int64_t size =
      2 * f.key_heads * f.key_dim + f.heads * (f.value_dim + 2);
  Doubles out(size_t(f.batch * f.length * size), 0.0);
  for (int64_t b = 0; b < f.batch; ++b) {
    for (int64_t h = 0; h < f.heads; ++h) {
      const Head head(f, b, h);
      std::vector<Doubles> states{head.start()};
      for (int64_t t = 0; t < f.length; ++t) {
        states.push_back(head.step(t, states.back()));
      }
      auto gradient = head.start();
      for (int64_t t = f.length; t-- > 0;) {
        double* token = out.data() + (b * f.length + t) * size;
        const auto& before = states[size_t(t)];
        const auto& after = states[size_t(t) + 1];
        step_back(args, head, h, t, before, after, gradient, token);
      }
    }
  }
  for (size_t i = 0; i < out.size(); ++i) {
    args.out[i] = float(out[i]);
  }
}

namespace {

double conv_at(const CausalConvArgs& args, int64_t b, int64_t t, int64_t c) {
  double sum = args.bias.data ? load_at(args.bias.data, args.bias.type, c) : 0;
  for (int64_t j = 0; j < args.width; ++j) {
    const int64_t from = t - (args.width - 1) + j;
    if (from < 0) {
      continue;
    }
    const int64_t index = b * args.x_batch_stride + from * args.x_row_stride;
    sum += double(load_at(args.x, args.type, index + c)) *
        load_at(args.weight.data, args.weight.type, c * args.width + j);
  }
  return sum;
}

}  // namespace

void causal_conv(const CausalConvArgs& args) {
  for (int64_t b = 0; b < args.batch; ++b) {
    for (int64_t t = 0; t < args.length; ++t) {
      for (int64_t c = 0; c < args.channels; ++c) {
        const double sum = conv_at(args, b, t, c);
        const double value = args.silu ? sum / (1.0 + std::exp(-sum)) : sum;
        const int64_t to = (b * args.length + t) * args.channels + c;
        store_at(args.out, args.type, to, float(value));
      }
    }
  }
}

}  // namespace pennyweight::kernels::reference
