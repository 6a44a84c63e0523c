#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "kernels/access.h"
#include "kernels/reference/reference.h"

namespace pennyweight::kernels::reference {

namespace {

const void* head_at(
    const HeadsView& view,
    DType type,
    int64_t batch,
    int64_t row,
    int64_t head) {
  const int64_t index = batch * view.batch_stride + row * view.row_stride +
      head * view.head_stride;
  return advance(view.data, type, index);
}

bool sees(const AttentionArgs& args, int64_t query, int64_t key) {
  const int64_t distance = args.keys - args.length + query - key;
  return (!args.causal || distance >= 0) &&
      (args.window == 0 || std::abs(distance) < args.window);
}

void attend(const AttentionArgs& args, int64_t b, int64_t i, int64_t h) {
  const int64_t kv_head = h / (args.heads / args.kv_heads);
  const void* q = head_at(args.q, args.type, b, i, h);
  std::vector<double> weights(size_t(args.keys), 0.0);
  double max = args.sinks ? double(args.sinks[h]) : -HUGE_VAL;
  for (int64_t j = 0; j < args.keys; ++j) {
    const void* k = head_at(args.k, args.type, b, j, kv_head);
    double score = 0;
    for (int64_t d = 0; d < args.head_dim; ++d) {
      score += double(load_at(q, args.type, d)) * load_at(k, args.type, d);
    }
    score *= double(args.scale);
    if (args.cap > 0) {
      score = double(args.cap) * std::tanh(score / double(args.cap));
    }
    weights[j] = sees(args, i, j) ? score : -HUGE_VAL;
    max = std::max(max, weights[j]);
  }
  double sum = args.sinks ? std::exp(double(args.sinks[h]) - max) : 0;
  for (double& weight : weights) {
    weight = max == -HUGE_VAL ? 0.0 : std::exp(weight - max);
    sum += weight;
  }
  for (int64_t d = 0; d < args.head_dim; ++d) {
    double value = 0;
    for (int64_t j = 0; j < args.keys; ++j) {
      const void* v = head_at(args.v, args.type, b, j, kv_head);
      value += weights[j] * load_at(v, args.type, d);
    }
    const int64_t to =
        ((b * args.length + i) * args.heads + h) * args.head_dim + d;
    store_at(args.out, args.type, to, float(sum > 0 ? value / sum : 0.0));
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

}  // namespace pennyweight::kernels::reference
