#include <mlx/ops.h>

#include <limits>

#include "kernels/score_state.h"
#include "ops/check.h"
#include "ops/head/head_inputs.h"
#include "ops/head/tile_ops.h"

namespace pennyweight::ops {

static_assert(kernels::kScoreColumns <= kScoreState);

namespace {

using namespace kernels;  // the columns of the state

mx::array constant(float value) {
  return mx::array(value, mx::float32);
}

/// Column `index` of the state as [rows, 1].
mx::array column(const mx::array& state, int index) {
  return mx::slice(state, {0, index}, {state.shape(0), index + 1});
}

/// One side's running values once they have seen a tile: maximum, sum, argmax
/// and the target's logit, [rows, 1] each; `rescale` is what old sums were
/// multiplied by, and `weights` [rows, n] are the tile's exp(logits - max).
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
  const auto rescale = mx::exp(old_max - max);
  const auto weights = mx::exp(logits - max);
  const auto sum =
      column(state, first_column + 1) * rescale + mx::sum(weights, -1, true);
  const auto tile_argmax =
      mx::astype(mx::argmax(logits, -1, true), mx::float32) + constant(first);
  const auto argmax = mx::where(
      tile_max > old_max, tile_argmax, column(state, first_column + 3));
  const int n = logits.shape(1);
  const auto local = mx::expand_dims(targets - mx::array(first, mx::int32), 1);
  const auto clipped =
      mx::clip(local, mx::array(0, mx::int32), mx::array(n - 1, mx::int32));
  const auto target = mx::where(
      local == clipped,
      mx::take_along_axis(logits, clipped, -1),
      column(state, first_column + 4));
  return {max, rescale, weights, sum, argmax, target};
}

mx::array update_by_mlx(
    const mx::array& state,
    const mx::array& logits,
    const std::optional<mx::array>& reference,
    const mx::array& targets,
    int first) {
  const auto c = as_float32(logits);
  const auto scored = advance(state, kScoreMax, c, targets, first);
  const auto low = mx::zeros_like(scored.sum);
  std::vector<mx::array> columns{
      scored.max, scored.sum, low, scored.argmax, scored.target};
  if (reference) {
    const auto r = as_float32(*reference);
    const auto ref = advance(state, kScoreRefMax, r, targets, first);
    const auto terms = mx::where(
        ref.weights > constant(0), ref.weights * (r - c), constant(0));
    const auto difference = column(state, kScoreDifference) * ref.rescale +
        mx::sum(terms, -1, true);
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

/// [4, rows]: nll, kl, reference_nll, agrees.
mx::array finish_by_mlx(const Arrays& in) {
  const auto& state = in[0];
  const auto at = [&](int index) {
    return mx::squeeze(column(state, index), 1);
  };
  const auto log_sum = mx::log(at(kScoreSum) + at(kScoreSumLow));
  const auto ref_sum = at(kScoreRefSum) + at(kScoreRefSumLow);
  const auto ref_log_sum = mx::log(ref_sum);
  const auto has_reference = at(kScoreHasReference) > constant(0);
  const auto nll = at(kScoreMax) - at(kScoreTarget) + log_sum;
  const auto ref_nll = at(kScoreRefMax) - at(kScoreRefTarget) + ref_log_sum;
  const auto difference = at(kScoreDifference) + at(kScoreDifferenceLow);
  const auto kl = difference / ref_sum + (at(kScoreMax) - at(kScoreRefMax)) +
      (log_sum - ref_log_sum);
  const auto none = constant(0);
  const auto agrees =
      mx::logical_not(has_reference) || at(kScoreArgmax) == at(kScoreRefArgmax);
  return mx::stack(
      {nll,
       mx::where(has_reference, kl, none),
       mx::where(has_reference, ref_nll, none),
       as_float32(agrees)});
}

void check_score_state(const mx::array& state) {
  require(
      state.dtype() == mx::float32 && state.ndim() == 2 &&
          state.shape(1) == kScoreState,
      "score",
      "the state is " + describe(state) + "; it is made by score_start");
}

void check_score_place(
    const mx::array& state,
    const mx::array& targets,
    int first) {
  check_score_state(state);
  require(first >= 0, "score", "the tile's first column is negative");
  require(
      targets.dtype() == mx::int32 &&
          targets.shape() == mx::Shape{state.shape(0)},
      "score",
      "the targets are " + describe(targets) +
          "; they have to be int32, one a row");
}

}  // namespace

void check_score_linear(
    const mx::array& state,
    const HeadRows& head,
    const std::optional<HeadRows>& reference,
    const mx::array& targets,
    int first) {
  const char* where = "score";
  check_score_place(state, targets, first);
  const auto check_side = [&](const HeadRows& side) {
    check_linear(side.x, side.weight, side.bias);
    require(
        side.x.ndim() == 2 && side.x.shape(0) == state.shape(0) &&
            side.weight.shape(0) == head.weight.shape(0),
        where,
        "x " + describe(side.x) + " and the head's rows " +
            describe(side.weight) + " do not fit the state " + describe(state));
  };
  check_side(head);
  if (reference) {
    check_side(*reference);
  }
}

mx::array score_start(int rows) {
  require(rows >= 0, "score", "the number of rows is negative");
  // Below every logit, and still finite: a tile of -inf keeps it.
  const float lowest = std::numeric_limits<float>::lowest();
  std::vector<float> row(kScoreState, 0.0f);
  row[kScoreMax] = lowest;
  row[kScoreRefMax] = lowest;
  return mx::broadcast_to(
      mx::array(row.begin(), {1, kScoreState}), {rows, kScoreState});
}

mx::array score_linear(
    const mx::array& state,
    const HeadRows& head,
    const std::optional<HeadRows>& reference,
    const mx::array& targets,
    int first,
    float scale) {
  check_score_linear(state, head, reference, targets, first);
  Arrays inputs{state, targets};
  const HeadInputs own(inputs, head);
  const HeadInputs other(inputs, reference);
  return make({
      .name = "score_linear",
      .shape = state.shape(),
      .dtype = mx::float32,
      .inputs = std::move(inputs),
      .fallback =
          [=](const Arrays& in) {
            const auto logits_of = [&](const HeadInputs& side) {
              return side.logits(in) * mx::array(scale);
            };
            std::optional<mx::array> beside;
            if (other.present()) {
              beside = logits_of(other);
            }
            return update_by_mlx(in[0], logits_of(own), beside, in[1], first);
          },
      .cpu = [=](CpuWork& work) -> Task {
        const kernels::ScoreMatmulArgs args{
            .rows = work.size(0, 0),
            .columns = work.size(3, 0),  // of the head's weight
            .first = first,
            .logits = own.side(work),
            .reference = other.side(work),
            .scale = scale,
            .targets = work.data<int32_t>(1),
            .state = static_cast<float*>(work.result_from(0).data),
            .state_stride = kScoreState};
        return [args] { kernels::score_matmul(args); };
      },
  });
}

Scores score_finish(const mx::array& state) {
  check_score_state(state);
  const auto all = make({
      .name = "score_finish",
      .shape = {4, state.shape(0)},
      .dtype = mx::float32,
      .inputs = {state},
      .fallback = finish_by_mlx,
      .cpu = [](CpuWork& work) -> Task {
        const kernels::ScoreFinishArgs args{
            .rows = work.size(0, 0),
            .state = work.data<float>(0),
            .state_stride = kScoreState,
            .out = static_cast<float*>(work.result().data)};
        return [args] { kernels::score_finish(args); };
      },
  });
  return {
      part_of(all, 0),
      part_of(all, 1),
      part_of(all, 2),
      mx::astype(part_of(all, 3), mx::bool_)};
}

}  // namespace pennyweight::ops
