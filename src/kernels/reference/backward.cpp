#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "kernels/access.h"
#include "kernels/reference/reference.h"

namespace pennyweight::kernels::reference {

void rms_norm_backward(const RmsNormBackwardArgs& args) {
  for (int64_t row = 0; row < args.rows; ++row) {
    double square = 0;
    double along = 0;
    const auto scaled = [&](int64_t j) {
      return double(load_at(args.dy, row, j)) *
          load_at(args.weight.data, args.weight.type, j);
    };
    for (int64_t j = 0; j < args.columns; ++j) {
      const double x = load_at(args.x, row, j);
      square += x * x;
      along += x * scaled(j);
    }
    const double n = double(args.columns);
    const double r = 1 / std::sqrt(square / n + double(args.eps));
    for (int64_t j = 0; j < args.columns; ++j) {
      const double x = load_at(args.x, row, j);
      const double dx = r * (scaled(j) - x * r * r * along / n);
      store_at(args.dx, row, j, float(dx));
    }
  }
}

void swiglu_backward(const SwigluBackwardArgs& args) {
  for (int64_t row = 0; row < args.rows; ++row) {
    for (int64_t j = 0; j < args.columns; ++j) {
      const double x = load_at(args.gate, row, j);
      const double up = load_at(args.up, row, j);
      const double dy = load_at(args.dy, row, j);
      const double a = double(kGeluLinear);
      const double c = double(kGeluCubic);
      const double z = args.gelu ? a * (x + c * x * x * x) : x;
      const double dz = args.gelu ? a * (1 + 3 * c * x * x) : 1;
      const double s = 1 / (1 + std::exp(-z));
      store_at(args.dup, row, j, float(dy * x * s));
      store_at(args.dgate, row, j, float(dy * up * (s + x * s * (1 - s) * dz)));
    }
  }
}

namespace {

/// Element d of a head.
double element(
    const AttentionArgs& args,
    const HeadsView& x,
    int64_t batch,
    int64_t row,
    int64_t head,
    int64_t d) {
  return load_at(
      x.data,
      args.type,
      batch * x.batch_stride + row * x.row_stride + head * x.head_stride + d);
}

bool sees(const AttentionArgs& args, int64_t query, int64_t key) {
  const int64_t distance = args.keys - args.length + query - key;
  return (!args.causal || distance >= 0) &&
      (args.window == 0 || std::abs(distance) < args.window);
}

/// Sums for dk and dv of one batch row: [keys, kv_heads, head_dim].
struct Sums {
  std::vector<double> dk, dv;
};

void backward_of(
    const AttentionBackwardArgs& args,
    int64_t b,
    int64_t i,
    int64_t h,
    Sums& sums) {
  const AttentionArgs& f = args.forward;
  const int64_t kv = h / (f.heads / f.kv_heads);
  std::vector<double> p(size_t(f.keys)), dp(p), slope(p);
  double max = f.sinks ? double(f.sinks[h]) : -HUGE_VAL;
  for (int64_t j = 0; j < f.keys; ++j) {
    double score = 0;
    for (int64_t d = 0; d < f.head_dim; ++d) {
      score += element(f, f.q, b, i, h, d) * element(f, f.k, b, j, kv, d);
      dp[size_t(j)] +=
          element(f, args.dout, b, i, h, d) * element(f, f.v, b, j, kv, d);
    }
    score *= double(f.scale);
    slope[size_t(j)] = 1;
    if (f.cap > 0) {
      const double part = std::tanh(score / double(f.cap));
      score = double(f.cap) * part;
      slope[size_t(j)] = 1 - part * part;
    }
    p[size_t(j)] = sees(f, i, j) ? score : -HUGE_VAL;
    max = std::max(max, p[size_t(j)]);
  }
  double sum = f.sinks ? std::exp(double(f.sinks[h]) - max) : 0;
  for (double& weight : p) {
    weight = max == -HUGE_VAL ? 0.0 : std::exp(weight - max);
    sum += weight;
  }
  double mean = 0;
  for (size_t j = 0; j < p.size(); ++j) {
    p[j] = sum > 0 ? p[j] / sum : 0.0;
    mean += p[j] * dp[j];
  }
  for (int64_t d = 0; d < f.head_dim; ++d) {
    double dq = 0;
    for (int64_t j = 0; j < f.keys; ++j) {
      const auto at = size_t(j);
      const double ds = p[at] * (dp[at] - mean) * slope[at] * double(f.scale);
      const auto to = size_t((j * f.kv_heads + kv) * f.head_dim + d);
      dq += ds * element(f, f.k, b, j, kv, d);
      sums.dk[to] += ds * element(f, f.q, b, i, h, d);
      sums.dv[to] += p[at] * element(f, args.dout, b, i, h, d);
    }
    const int64_t to = ((b * f.length + i) * f.heads + h) * f.head_dim + d;
    store_at(args.dq, f.type, to, float(dq));
  }
}

}  // namespace

void attention_backward(const AttentionBackwardArgs& args) {
  const AttentionArgs& f = args.forward;
  const int64_t size = f.keys * f.kv_heads * f.head_dim;
  for (int64_t b = 0; b < f.batch; ++b) {
    Sums sums{
        std::vector<double>(size_t(size)), std::vector<double>(size_t(size))};
    for (int64_t i = 0; i < f.length; ++i) {
      for (int64_t h = 0; h < f.heads; ++h) {
        backward_of(args, b, i, h, sums);
      }
    }
    for (int64_t j = 0; j < size; ++j) {
      store_at(args.dk, f.type, b * size + j, float(sums.dk[size_t(j)]));
      store_at(args.dv, f.type, b * size + j, float(sums.dv[size_t(j)]));
    }
  }
}

}  // namespace pennyweight::kernels::reference
