#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "kernels/access.h"
#include "kernels/reference/reference.h"

namespace pennyweight::kernels::reference {

namespace {

bool sees(const AttentionArgs& args, int64_t query, int64_t key) {
  const int64_t distance = args.keys - args.length + query - key;
  return (!args.causal || distance >= 0) &&
      (args.window == 0 || std::abs(distance) < args.window);
}

/// The weight that one query gives to each key.
struct Weights {
  std::vector<double> p;     // softmax; all 0 where no key is seen
  std::vector<double> dcap;  // derivative of the capped score by the plain one
};

Weights weigh(const AttentionArgs& args, int64_t b, int64_t i, int64_t h) {
  const int64_t kv_head = h / (args.heads / args.kv_heads);
  const void* q = element_at(args.q, args.type, b, i, h);
  Weights weights{
      std::vector<double>(size_t(args.keys)),
      std::vector<double>(size_t(args.keys), 1.0)};
  double max = args.sinks ? double(args.sinks[h]) : -HUGE_VAL;
  for (int64_t j = 0; j < args.keys; ++j) {
    const void* k = element_at(args.k, args.type, b, j, kv_head);
    double score = 0;
    for (int64_t d = 0; d < args.head_dim; ++d) {
      score += double(load_at(q, args.type, d)) * load_at(k, args.type, d);
    }
    score *= double(args.scale);
    if (args.cap > 0) {
      const double part = std::tanh(score / double(args.cap));
      score = double(args.cap) * part;
      weights.dcap[size_t(j)] = 1 - part * part;
    }
    weights.p[size_t(j)] = sees(args, i, j) ? score : -HUGE_VAL;
    max = std::max(max, weights.p[size_t(j)]);
  }
  double sum = args.sinks ? std::exp(double(args.sinks[h]) - max) : 0;
  for (double& weight : weights.p) {
    weight = max == -HUGE_VAL ? 0.0 : std::exp(weight - max);
    sum += weight;
  }
  for (double& weight : weights.p) {
    weight = sum > 0 ? weight / sum : 0.0;
  }
  return weights;
}

void attend(const AttentionArgs& args, int64_t b, int64_t i, int64_t h) {
  const int64_t kv_head = h / (args.heads / args.kv_heads);
  const auto weights = weigh(args, b, i, h);
  for (int64_t d = 0; d < args.head_dim; ++d) {
    double value = 0;
    for (int64_t j = 0; j < args.keys; ++j) {
      const void* v = element_at(args.v, args.type, b, j, kv_head);
      value += weights.p[size_t(j)] * load_at(v, args.type, d);
    }
    const int64_t to =
        ((b * args.length + i) * args.heads + h) * args.head_dim + d;
    store_at(args.out, args.type, to, float(value));
  }
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
  const int64_t kv_head = h / (f.heads / f.kv_heads);
  const auto at =
      [&](const HeadsView& x, int64_t row, int64_t head, int64_t d) {
        return double(load_at(element_at(x, f.type, b, row, head), f.type, d));
      };
  const auto weights = weigh(f, b, i, h);
  std::vector<double> dp(size_t(f.keys));
  double mean = 0;
  for (int64_t j = 0; j < f.keys; ++j) {
    for (int64_t d = 0; d < f.head_dim; ++d) {
      dp[size_t(j)] += at(args.dout, i, h, d) * at(f.v, j, kv_head, d);
    }
    mean += weights.p[size_t(j)] * dp[size_t(j)];
  }
  for (int64_t d = 0; d < f.head_dim; ++d) {
    double dq = 0;
    for (int64_t j = 0; j < f.keys; ++j) {
      const double p = weights.p[size_t(j)];
      const double ds = p * (dp[size_t(j)] - mean) * weights.dcap[size_t(j)] *
          double(f.scale);
      const auto to = size_t((j * f.kv_heads + kv_head) * f.head_dim + d);
      dq += ds * at(f.k, j, kv_head, d);
      sums.dk[to] += ds * at(f.q, i, h, d);
      sums.dv[to] += p * at(args.dout, i, h, d);
    }
    const int64_t to = ((b * f.length + i) * f.heads + h) * f.head_dim + d;
    store_at(args.dq, f.type, to, float(dq));
  }
}

}  // namespace

void attention(const AttentionArgs& args) {
  for (int64_t b = 0; b < args.batch; ++b) {
    for (int64_t i = 0; i < args.length; ++i) {
      for (int64_t h = 0; h < args.heads; ++h) {
        attend(args, b, i, h);
      }
    }
  }
}

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
