#include <algorithm>
#include <cmath>

#include "kernels/access.h"
#include "kernels/reference/reference.h"
#include "kernels/score_state.h"

namespace pennyweight::kernels::reference {

namespace {

/// Brings one side of a row's state, which begins at column `side`, up to date.
/// Returns what older sums relative to its maximum have to be multiplied by.
double advance_side(
    float* state,
    int side,
    const ConstMatrix& logits,
    int64_t row,
    const ScoreArgs& args) {
  const double old_max = state[side];
  for (int64_t j = 0; j < args.columns; ++j) {
    const float logit = load_at(logits, row, j);
    if (logit > state[side]) {
      state[side] = logit;
      state[side + kScoreArgmax] = float(args.first + j);
    }
    if (args.first + j == args.targets[row]) {
      state[side + kScoreTarget] = logit;
    }
  }
  const double max = state[side];
  const double shrink = std::exp(old_max - max);
  double sum = load_sum(state, side + kScoreSum) * shrink;
  for (int64_t j = 0; j < args.columns; ++j) {
    sum += std::exp(load_at(logits, row, j) - max);
  }
  store_sum(state, side + kScoreSum, sum);
  return shrink;
}

}  // namespace

void score_update(const ScoreArgs& args) {
  for (int64_t i = 0; i < args.rows; ++i) {
    float* state = args.state + i * args.state_stride;
    advance_side(state, kScoreMax, args.logits, i, args);
    if (!args.reference.data) {
      continue;
    }
    const double shrink =
        advance_side(state, kScoreRefMax, args.reference, i, args);
    double difference = load_sum(state, kScoreDifference) * shrink;
    for (int64_t j = 0; j < args.columns; ++j) {
      const double r = load_at(args.reference, i, j);
      const double weight = std::exp(r - state[kScoreRefMax]);
      if (weight > 0) {
        difference += weight * (r - load_at(args.logits, i, j));
      }
    }
    store_sum(state, kScoreDifference, difference);
    state[kScoreHasReference] = 1;
  }
}

}  // namespace pennyweight::kernels::reference
