#include "ops/expert_rows.h"

#include <mlx/ops.h>

#include <algorithm>

#include "kernels/rows.h"
#include "ops/check.h"
#include "ops/primitive.h"

namespace pennyweight::ops {

namespace {

void check(
    const mx::array& x,
    const RowOrder& order,
    int rows,
    const char* where) {
  require_floating(x, where, "x");
  require(
      order.place.ndim() == 2 && order.slot.ndim() == 1 &&
          order.place.dtype() == mx::uint32 &&
          order.slot.dtype() == mx::uint32 &&
          order.place.size() == order.slot.size() && x.ndim() == 2 &&
          x.shape(0) == rows,
      where,
      "rows " + describe(x) + " do not fit slots " + describe(order.slot) +
          " and places " + describe(order.place));
}

int64_t divided(int64_t size, int64_t rows) {
  return size / std::max<int64_t>(1, rows);
}

/// See kernels::MixRowsArgs. Input 0 is x, 1 the index [rows, count] and, with
/// `weighted`, 2 the weights likewise.
Task mix_rows_task(CpuWork& work, uint32_t divisor, bool weighted) {
  const auto out = work.result();
  const int64_t rows = work.out_size(0);
  const kernels::MixRowsArgs args{
      .rows = rows,
      .columns = work.out_size(1),
      .count = divided(work.rows(1) * work.columns(1), rows),
      .divisor = divisor,
      .x = work.matrix(0),
      .index = work.data<uint32_t>(1),
      .weights = weighted ? work.data<float>(2) : nullptr,
      .out = out};
  return [args] { kernels::mix_rows(args); };
}

/// The same as an op, for gradients: [rows, columns of x] in `dtype`.
mx::array mix_rows(Arrays inputs, int rows, uint32_t divisor, mx::Dtype dtype) {
  const int columns = inputs[0].shape(1);
  const bool weighted = inputs.size() > 2;
  return make({
      .name = "mix_rows",
      .shape = {rows, columns},
      .dtype = dtype,
      .inputs = std::move(inputs),
      .cpu =
          [=](CpuWork& work) { return mix_rows_task(work, divisor, weighted); },
  });
}

/// The gradient by scores: of each slot, dy of its token times its row of y.
mx::array
by_scores(const mx::array& dy, const mx::array& y, const mx::array& place) {
  return make({
      .name = "dot_rows",
      .shape = place.shape(),
      .dtype = mx::float32,
      .inputs = {dy, y, place},
      .cpu = [](CpuWork& work) -> Task {
        const kernels::DotRowsArgs args{
            .rows = work.rows(0),
            .columns = work.columns(0),
            .count = work.size(2, 1),
            .y = work.matrix(0),
            .x = work.matrix(1),
            .index = work.data<uint32_t>(2),
            .out = static_cast<float*>(work.result().data)};
        return [args] { kernels::dot_rows(args); };
      },
  });
}

}  // namespace

mx::array rows_of_slots(const mx::array& x, const RowOrder& order) {
  check(x, order, order.place.shape(0), "rows_of_slots");
  const auto chosen = uint32_t(order.place.shape(1));
  return make({
      .name = "rows_of_slots",
      .shape = {order.slot.shape(0), x.shape(1)},
      .dtype = x.dtype(),
      .inputs = {x, order.slot, order.place},
      .fallback =
          [chosen](const Arrays& in) {
            const auto token = mx::floor_divide(in[1], mx::array(chosen));
            return mx::take(in[0], token, 0);
          },
      .cpu = [chosen](
                 CpuWork& work) { return mix_rows_task(work, chosen, false); },
      .vjp = [](const Arrays& in, const mx::array& dy) -> GradientOf {
        return [=](size_t i) {
          return i == 0
              ? mix_rows({dy, in[2]}, in[0].shape(0), 1, in[0].dtype())
              : mx::zeros_like(in[i]);
        };
      },
  });
}

mx::array
mix_slots(const mx::array& y, const RowOrder& order, const mx::array& scores) {
  check(y, order, order.slot.shape(0), "mix_slots");
  require(
      scores.shape() == order.place.shape() && scores.dtype() == mx::float32,
      "mix_slots",
      "scores " + describe(scores) + " have to be float32, as places " +
          describe(order.place));
  return make({
      .name = "mix_slots",
      .shape = {order.place.shape(0), y.shape(1)},
      .dtype = mx::float32,
      .inputs = {y, order.place, scores, order.slot},
      .fallback =
          [](const Arrays& in) {
            const auto rows =
                as_float32(mx::take(in[0], mx::flatten(in[1]), 0));
            const auto by_token = mx::reshape(
                rows, {in[1].shape(0), in[1].shape(1), in[0].shape(1)});
            return mx::sum(by_token * mx::expand_dims(in[2], -1), 1);
          },
      .cpu = [](CpuWork& work) { return mix_rows_task(work, 1, true); },
      .vjp = [](const Arrays& in, const mx::array& by_result) -> GradientOf {
        const auto dy = as_float32(by_result);
        return [=](size_t i) {
          if (i == 0) {
            const auto of_rows = mx::take(mx::flatten(in[2]), in[3], 0);
            return mix_rows(
                {dy, in[3], of_rows},
                in[0].shape(0),
                uint32_t(in[1].shape(1)),
                in[0].dtype());
          }
          return i == 2 ? by_scores(dy, in[0], in[1]) : mx::zeros_like(in[i]);
        };
      },
  });
}

}  // namespace pennyweight::ops
