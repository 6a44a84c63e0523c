#include <mlx/ops.h>

#include "kernels/score_state.h"
#include "ops/mlx_path.h"

namespace pennyweight::ops::mlx_path {

namespace {

using namespace kernels;  // the columns of the state

mx::array constant(float value) {
  return mx::array(value, mx::float32);
}

/// Column `index` of the state as [rows, 1].
mx::array column(const mx::array& state, int index) {
  return mx::slice(state, {0, index}, {state.shape(0), index + 1});
}

/// What a tile adds to the running values of one side: max, sum, argmax and
/// the target's logit, each [rows, 1].
struct Side {
  mx::array max, rescale, weights, sum, argmax, target;
};

Side advance(
    const mx::array& state,
    ScoreColumn first_column,
    const mx::array& logits,
    const mx::array& targets,
    int first) {
  const auto old_max = column(state, first_column);
  const auto tile_max = mx::max(logits, -1, true);
  const auto max = mx::maximum(old_max, tile_max);
  const auto rescale = mx::exp(mx::subtract(old_max, max));
  const auto weights = mx::exp(mx::subtract(logits, max));
  const auto sum = mx::add(
      mx::multiply(column(state, first_column + 1), rescale),
      mx::sum(weights, -1, true));
  const auto tile_argmax = mx::add(
      mx::astype(mx::argmax(logits, -1, true), mx::float32), constant(first));
  const auto argmax = mx::where(
      mx::greater(tile_max, old_max),
      tile_argmax,
      column(state, first_column + 3));
  const int n = logits.shape(1);
  const auto local =
      mx::expand_dims(mx::subtract(targets, mx::array(first, mx::int32)), 1);
  const auto clipped =
      mx::clip(local, mx::array(0, mx::int32), mx::array(n - 1, mx::int32));
  const auto target = mx::where(
      mx::equal(local, clipped),
      mx::take_along_axis(logits, clipped, -1),
      column(state, first_column + 4));
  return {max, rescale, weights, sum, argmax, target};
}

}  // namespace

mx::array score_update(
    const mx::array& state,
    const mx::array& logits,
    const std::optional<mx::array>& reference,
    const mx::array& targets,
    int first) {
  const auto c = mx::astype(logits, mx::float32);
  const auto scored = advance(state, kScoreMax, c, targets, first);
  const auto low = mx::zeros_like(scored.sum);
  std::vector<mx::array> columns{
      scored.max, scored.sum, low, scored.argmax, scored.target};
  if (reference) {
    const auto r = mx::astype(*reference, mx::float32);
    const auto ref = advance(state, kScoreRefMax, r, targets, first);
    const auto terms = mx::where(
        mx::greater(ref.weights, constant(0)),
        mx::multiply(ref.weights, mx::subtract(r, c)),
        constant(0));
    const auto difference = mx::add(
        mx::multiply(column(state, kScoreDifference), ref.rescale),
        mx::sum(terms, -1, true));
    columns.insert(
        columns.end(),
        {ref.max,
         ref.sum,
         low,
         ref.argmax,
         ref.target,
         difference,
         low,
         mx::ones_like(low)});
    columns.push_back(mx::zeros({state.shape(0), kScoreState - kScoreColumns}));
  } else {
    columns.push_back(
        mx::slice(state, {0, kScoreRefMax}, {state.shape(0), state.shape(1)}));
  }
  return mx::concatenate(std::move(columns), -1);
}

Scores score_finish(const mx::array& state) {
  const auto at = [&](int index) {
    return mx::squeeze(column(state, index), 1);
  };
  const auto log_sum = mx::log(mx::add(at(kScoreSum), at(kScoreSumLow)));
  const auto ref_sum = mx::add(at(kScoreRefSum), at(kScoreRefSumLow));
  const auto ref_log_sum = mx::log(ref_sum);
  const auto has_reference = mx::greater(at(kScoreHasReference), constant(0));
  const auto nll =
      mx::add(mx::subtract(at(kScoreMax), at(kScoreTarget)), log_sum);
  const auto ref_nll =
      mx::add(mx::subtract(at(kScoreRefMax), at(kScoreRefTarget)), ref_log_sum);
  const auto difference =
      mx::add(at(kScoreDifference), at(kScoreDifferenceLow));
  const auto kl = mx::add(
      mx::add(
          mx::divide(difference, ref_sum),
          mx::subtract(at(kScoreMax), at(kScoreRefMax))),
      mx::subtract(log_sum, ref_log_sum));
  const auto none = constant(0);
  return {
      nll,
      mx::where(has_reference, kl, none),
      mx::where(has_reference, ref_nll, none),
      mx::logical_or(
          mx::logical_not(has_reference),
          mx::equal(at(kScoreArgmax), at(kScoreRefArgmax)))};
}

}  // namespace pennyweight::ops::mlx_path
