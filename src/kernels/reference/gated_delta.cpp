#include <cmath>
#include <utility>
#include <vector>

#include "kernels/access.h"
#include "kernels/reference/reference.h"

namespace pennyweight::kernels::reference {

namespace {

double dot(const double* a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    sum += a[i] * b[i];
  }
  return sum;
}

std::vector<double> row_at(
    const HeadsView& view,
    DType type,
    int64_t batch,
    int64_t row,
    int64_t head,
    int64_t dim) {
  const int64_t first = batch * view.batch_stride + row * view.row_stride +
      head * view.head_stride;
  std::vector<double> values(static_cast<size_t>(dim));
  for (int64_t i = 0; i < dim; ++i) {
    values[size_t(i)] = load_at(view.data, type, first + i);
  }
  return values;
}

void run_head(const GatedDeltaArgs& args, int64_t b, int64_t h) {
  const int64_t key_head = h / (args.heads / args.key_heads);
  std::vector<double> state(size_t(args.value_dim * args.key_dim), 0.0);
  for (int64_t t = 0; t < args.length; ++t) {
    const auto q = row_at(args.q, args.type, b, t, key_head, args.key_dim);
    const auto k = row_at(args.k, args.type, b, t, key_head, args.key_dim);
    const auto v = row_at(args.v, args.value_type, b, t, h, args.value_dim);
    const int64_t at = (b * args.length + t) * args.heads + h;
    for (int64_t r = 0; r < args.value_dim; ++r) {
      double* row = state.data() + r * args.key_dim;
      for (int64_t i = 0; i < args.key_dim; ++i) {
        row[i] *= args.g[at];
      }
      const double delta = args.beta[at] * (v[size_t(r)] - dot(row, k));
      for (int64_t i = 0; i < args.key_dim; ++i) {
        row[i] += delta * k[size_t(i)];
      }
      store_at(
          args.out,
          args.value_type,
          at * args.value_dim + r,
          float(dot(row, q)));
    }
  }
}

}  // namespace

void gated_delta(const GatedDeltaArgs& args) {
  for (int64_t b = 0; b < args.batch; ++b) {
    for (int64_t h = 0; h < args.heads; ++h) {
      run_head(args, b, h);
    }
  }
}

namespace {

using Doubles = std::vector<double>;

/// One head of one batch, all states kept; see simd/gated_delta_backward.cpp
/// for the formulas.
class HeadBackward {
 public:
  HeadBackward(const GatedDeltaBackwardArgs& args, int64_t b, int64_t h)
      : args_(args),
        f_(args.forward),
        b_(b),
        h_(h),
        key_head_(h / (f_.heads / f_.key_heads)) {}

  void run(Doubles& out) {
    states_.assign(1, Doubles(size_t(f_.value_dim * f_.key_dim), 0.0));
    for (int64_t t = 0; t < f_.length; ++t) {
      step(t);
    }
    slope_.assign(states_[0].size(), 0.0);
    for (int64_t t = f_.length - 1; t >= 0; --t) {
      step_back(t, out);
    }
  }

 private:
  Doubles key(int64_t t) const {
    return row_at(f_.k, f_.type, b_, t, key_head_, f_.key_dim);
  }
  size_t gate(int64_t t) const {
    return size_t((b_ * f_.length + t) * f_.heads + h_);
  }
  /// e and S k, of one row.
  double known(int64_t t, int64_t r, const Doubles& k) const {
    return dot(states_[size_t(t)].data() + r * f_.key_dim, k);
  }

  void step(int64_t t) {
    const auto k = key(t);
    const auto v = row_at(f_.v, f_.value_type, b_, t, h_, f_.value_dim);
    auto next = states_.back();
    for (int64_t r = 0; r < f_.value_dim; ++r) {
      const double g = f_.g[gate(t)];
      const double delta =
          f_.beta[gate(t)] * (v[size_t(r)] - g * known(t, r, k));
      for (int64_t i = 0; i < f_.key_dim; ++i) {
        double& own = next[size_t(r * f_.key_dim + i)];
        own = g * own + delta * k[size_t(i)];
      }
    }
    states_.push_back(std::move(next));
  }

  void step_back(int64_t t, Doubles& out) {
    const auto k = key(t);
    const auto q = row_at(f_.q, f_.type, b_, t, key_head_, f_.key_dim);
    const auto v = row_at(f_.v, f_.value_type, b_, t, h_, f_.value_dim);
    const int64_t keys = f_.key_heads * f_.key_dim;
    double* token = out.data() +
        (b_ * f_.length + t) * (2 * keys + f_.heads * (f_.value_dim + 2));
    double* dq = token + key_head_ * f_.key_dim;
    double* dk = dq + keys;
    double* dv = token + 2 * keys + h_ * f_.value_dim;
    double* dg = token + 2 * keys + f_.heads * f_.value_dim + h_;
    const double g = f_.g[gate(t)];
    const double beta = f_.beta[gate(t)];
    for (int64_t r = 0; r < f_.value_dim; ++r) {
      const double* before = states_[size_t(t)].data() + r * f_.key_dim;
      const double* after = states_[size_t(t) + 1].data() + r * f_.key_dim;
      double* slope = slope_.data() + r * f_.key_dim;
      const double dy =
          load_at(args_.dy, f_.value_type, int64_t(gate(t)) * f_.value_dim + r);
      for (int64_t i = 0; i < f_.key_dim; ++i) {
        slope[i] += dy * q[size_t(i)];
        dq[i] += dy * after[i];
      }
      const double seen = known(t, r, k);
      const double error = v[size_t(r)] - g * seen;
      const double ddelta = dot(slope, k);
      dv[r] = beta * ddelta;
      dg[f_.heads] += ddelta * error;
      dg[0] -= dv[r] * seen;
      for (int64_t i = 0; i < f_.key_dim; ++i) {
        dk[i] += slope[i] * beta * error - g * before[i] * dv[r];
        dg[0] += slope[i] * before[i];
        slope[i] = g * (slope[i] - dv[r] * k[size_t(i)]);
      }
    }
  }

  const GatedDeltaBackwardArgs& args_;
  const GatedDeltaArgs& f_;
  int64_t b_, h_, key_head_;
  std::vector<Doubles> states_;
  Doubles slope_;
};

}  // namespace

void gated_delta_backward(const GatedDeltaBackwardArgs& args) {
  const GatedDeltaArgs& f = args.forward;
  const int64_t token =
      2 * f.key_heads * f.key_dim + f.heads * (f.value_dim + 2);
  Doubles out(size_t(f.batch * f.length * token), 0.0);
  for (int64_t b = 0; b < f.batch; ++b) {
    for (int64_t h = 0; h < f.heads; ++h) {
      HeadBackward(args, b, h).run(out);
    }
  }
  for (size_t i = 0; i < out.size(); ++i) {
    args.out[i] = float(out[i]);
  }
}

namespace {

double conv_at(const CausalConvArgs& args, int64_t b, int64_t t, int64_t c) {
  double sum = 0;
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
