#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/access.h"
#include "kernels/quant_codes.h"
#include "kernels/reference/reference.h"
#include "kernels/score_state.h"

namespace pennyweight::kernels::reference {

namespace {

/// The softmax of one logit, by the maximum and sum of its side (kScoreMax or
/// kScoreRefMax) in the row's state.
double
chance(float logit, const KlGradientArgs& args, const float* state, int side) {
  const double sum = double(state[side + kScoreSum - kScoreMax]) +
      double(state[side + kScoreSumLow - kScoreMax]);
  return std::exp(double(logit) / args.temperature - double(state[side])) / sum;
}

/// x(i) - log(sum(exp(x))) for i < count.
template <class F>
std::vector<double> log_softmax(int64_t count, F&& x) {
  std::vector<double> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    values[size_t(i)] = x(i);
  }
  const double max = *std::max_element(values.begin(), values.end());
  double sum = 0;
  for (double value : values) {
    sum += std::exp(value - max);
  }
  for (double& value : values) {
    value -= max + std::log(sum);
  }
  return values;
}

}  // namespace

void kl_gradient(const KlGradientArgs& args) {
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* state = args.state + row * args.state_stride;
    for (int64_t j = 0; j < args.columns; ++j) {
      const float s = load_at(args.logits, row, j);
      const float r = load_at(args.reference, row, j);
      double factor = double(args.factor) / args.temperature;
      if (args.cap > 0) {
        const double part = double(s) / args.cap;
        factor *= 1 - part * part;
      }
      const double p = chance(s, args, state, kScoreMax);
      const double q = chance(r, args, state, kScoreRefMax);
      store_at(args.gradient, row, j, float(factor * (p - q)));
    }
  }
}

void group_gradient(const GroupGradientArgs& args) {
  const int64_t groups = args.weight.columns / args.weight.group;
  const int64_t row_bytes = code_bytes_per_row(args.weight);
  for (int64_t row = 0; row < args.weight.rows; ++row) {
    const auto* codes =
        static_cast<const uint8_t*>(args.weight.codes) + row * row_bytes;
    for (int64_t g = 0; g < groups; ++g) {
      double by_scale = 0;
      double by_bias = 0;
      for (int64_t i = 0; i < args.weight.group; ++i) {
        const int64_t column = g * args.weight.group + i;
        const double dw = load_at(args.dw, row, column);
        by_scale += dw * code_at(codes, args.weight.bits, column);
        by_bias += dw;
      }
      args.dscales[row * groups + g] = float(by_scale);
      args.dbiases[row * groups + g] = float(by_bias);
    }
  }
}

void accumulate(const AccumulateArgs& args) {
  for (int64_t i = 0; i < args.count; ++i) {
    args.sum[i] += args.x[i];
  }
}

void kl_top(const KlTopArgs& args) {
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* values = args.values + row * args.count;
    const auto log_p = log_softmax(args.count, [&](int64_t i) {
      return double(values[i]) / args.temperature;
    });
    const auto log_q = log_softmax(args.count, [&](int64_t i) {
      return double(load_at(args.reference, row, i)) / args.temperature;
    });
    double loss = 0;
    for (int64_t i = 0; i < args.count; ++i) {
      const double p = std::exp(log_p[size_t(i)]);
      const double q = std::exp(log_q[size_t(i)]);
      loss += q * (log_q[size_t(i)] - log_p[size_t(i)]);
      double factor = double(args.factor) / args.temperature;
      if (args.cap > 0) {
        const double part = double(values[i]) / args.cap;
        factor *= 1 - part * part;
      }
      args.gradient[row * args.count + i] = float(factor * (p - q));
    }
    args.loss[row] = float(loss);
  }
}

void top(const TopArgs& args) {
  for (int64_t row = 0; row < args.rows; ++row) {
    std::vector<uint32_t> order(size_t(args.columns));
    std::iota(order.begin(), order.end(), 0u);
    std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
      return load_at(args.x, row, a) > load_at(args.x, row, b);
    });
    std::sort(order.begin(), order.begin() + args.count);
    for (int64_t i = 0; i < args.count; ++i) {
      args.indices[row * args.count + i] = order[size_t(i)];
      store_at(args.values, row, i, load_at(args.x, row, order[size_t(i)]));
    }
  }
}

}  // namespace pennyweight::kernels::reference
