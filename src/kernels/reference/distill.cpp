#include <cmath>

#include "kernels/access.h"
#include "kernels/quant_codes.h"
#include "kernels/reference/reference.h"
#include "kernels/score_state.h"

namespace pennyweight::kernels::reference {

namespace {

/// p of a row's side whose maximum stands at `side` of its state.
double
chance(float logit, const KlSlopesArgs& args, const float* state, int side) {
  const double sum = double(state[side + kScoreSum - kScoreMax]) +
      double(state[side + kScoreSumLow - kScoreMax]);
  return std::exp(double(logit) / args.temperature - double(state[side])) / sum;
}

}  // namespace

void kl_slopes(const KlSlopesArgs& args) {
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* state = args.state + row * args.state_stride;
    for (int64_t j = 0; j < args.columns; ++j) {
      const float s = load_at(args.logits, row, j);
      const float r = load_at(args.reference, row, j);
      double slope = double(args.factor) / args.temperature;
      if (args.cap > 0) {
        const double part = double(s) / args.cap;
        slope *= 1 - part * part;
      }
      const double p = chance(s, args, state, kScoreMax);
      const double q = chance(r, args, state, kScoreRefMax);
      store_at(args.slopes, row, j, float(slope * (p - q)));
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

}  // namespace pennyweight::kernels::reference
