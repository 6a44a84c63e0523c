#include "ops/expert_rows.h"

#include <mlx/ops.h>

#include <algorithm>

#include "kernels/rows.h"
#include "ops/check.h"
#include "ops/mlx_path.h"
#include "ops/primitive.h"

namespace pennyweight::ops {

namespace {

using Arrays = std::vector<mx::array>;

/// x, an index [rows, count] and, where there are, weights likewise.
class MixRows : public CpuPrimitive {
 public:
  MixRows(mx::Stream stream, uint32_t divisor)
      : CpuPrimitive(stream), divisor_(divisor) {}

  const char* name() const override {
    return "pennyweight::MixRows";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto x = with_even_rows(inputs[0]);
    const auto index = without_gaps(inputs[1]);
    std::optional<mx::array> weights;
    if (inputs.size() > 2) {
      weights = without_gaps(inputs[2]);
    }
    allocate(out);
    const kernels::MixRowsArgs args{
        .rows = row_count(out),
        .columns = column_count(out),
        .count = int64_t(index.size()) / std::max<int64_t>(1, row_count(out)),
        .divisor = divisor_,
        .x = matrix_of(x),
        .index = index.data<uint32_t>(),
        .weights = weights ? weights->data<float>() : nullptr,
        .out = matrix_of(out)};
    return [args] { kernels::mix_rows(args); };
  }

 private:
  uint32_t divisor_;
};

mx::array mix_rows(
    const Arrays& inputs,
    int rows,
    uint32_t divisor,
    mx::Dtype dtype,
    mx::Stream stream) {
  return mx::array(
      {rows, inputs[0].shape(1)},
      dtype,
      std::make_shared<MixRows>(stream, divisor),
      inputs);
}

class DotRows : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  const char* name() const override {
    return "pennyweight::DotRows";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto y = with_even_rows(inputs[0]);
    const auto x = with_even_rows(inputs[1]);
    const auto index = without_gaps(inputs[2]);
    allocate(out);
    const kernels::DotRowsArgs args{
        .rows = row_count(y),
        .columns = column_count(y),
        .count = int64_t(index.size()) / std::max<int64_t>(1, row_count(y)),
        .y = matrix_of(y),
        .x = matrix_of(x),
        .index = index.data<uint32_t>(),
        .out = out.data<float>()};
    return [args] { kernels::dot_rows(args); };
  }
};

uint32_t chosen_of(const mx::array& place) {
  return uint32_t(place.shape(1));
}

/// Inputs: x, slot, place.
class RowsOfSlots : public MixRows {
 public:
  RowsOfSlots(mx::Stream stream, uint32_t chosen) : MixRows(stream, chosen) {}

  Arrays vjp(
      const Arrays& primals,
      const Arrays& cotangents,
      const std::vector<int>& argnums,
      const Arrays&) override {
    Arrays gradients;
    for (int arg : argnums) {
      const auto& primal = primals[size_t(arg)];
      gradients.push_back(
          arg == 0 ? mix_rows(
                         {cotangents[0], primals[2]},
                         primal.shape(0),
                         1,
                         primal.dtype(),
                         stream())
                   : mx::zeros_like(primal, stream()));
    }
    return gradients;
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    return MixRows::plan({inputs[0], inputs[1]}, out);
  }
};

/// Inputs: y, place, scores, slot.
class MixSlots : public MixRows {
 public:
  explicit MixSlots(mx::Stream stream) : MixRows(stream, 1) {}

  Arrays vjp(
      const Arrays& primals,
      const Arrays& cotangents,
      const std::vector<int>& argnums,
      const Arrays&) override {
    const auto& y = primals[0];
    const auto& place = primals[1];
    const auto& scores = primals[2];
    const auto& slot = primals[3];
    const auto dy = mx::astype(cotangents[0], mx::float32, stream());
    Arrays gradients;
    for (int arg : argnums) {
      if (arg == 0) {
        const auto of_rows =
            mx::take(mx::flatten(scores, 0, -1, stream()), slot, 0, stream());
        gradients.push_back(mix_rows(
            {dy, slot, of_rows},
            y.shape(0),
            chosen_of(place),
            y.dtype(),
            stream()));
      } else if (arg == 2) {
        gradients.push_back(mx::array(
            scores.shape(),
            mx::float32,
            std::make_shared<DotRows>(stream()),
            {dy, y, place}));
      } else {
        gradients.push_back(mx::zeros_like(primals[size_t(arg)], stream()));
      }
    }
    return gradients;
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    return MixRows::plan({inputs[0], inputs[1], inputs[2]}, out);
  }
};

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

}  // namespace

mx::array mlx_path::rows_of_slots(const mx::array& x, const RowOrder& order) {
  const auto token =
      mx::floor_divide(order.slot, mx::array(chosen_of(order.place)));
  return mx::take(x, token, 0);
}

mx::array mlx_path::mix_slots(
    const mx::array& y,
    const RowOrder& order,
    const mx::array& scores) {
  const auto rows =
      mx::astype(mx::take(y, mx::flatten(order.place), 0), mx::float32);
  const auto by_token = mx::reshape(
      rows, {order.place.shape(0), order.place.shape(1), y.shape(1)});
  return mx::sum(mx::multiply(by_token, mx::expand_dims(scores, -1)), 1);
}

mx::array rows_of_slots(const mx::array& x, const RowOrder& order) {
  check(x, order, order.place.shape(0), "rows_of_slots");
  const auto cpu = cpu_stream();
  if (!cpu) {
    return mlx_path::rows_of_slots(x, order);
  }
  return mx::array(
      {order.slot.shape(0), x.shape(1)},
      x.dtype(),
      std::make_shared<RowsOfSlots>(*cpu, chosen_of(order.place)),
      {x, order.slot, order.place});
}

mx::array
mix_slots(const mx::array& y, const RowOrder& order, const mx::array& scores) {
  check(y, order, order.slot.shape(0), "mix_slots");
  require(
      scores.shape() == order.place.shape() && scores.dtype() == mx::float32,
      "mix_slots",
      "scores " + describe(scores) + " have to be float32, as places " +
          describe(order.place));
  const auto cpu = cpu_stream();
  if (!cpu) {
    return mlx_path::mix_slots(y, order, scores);
  }
  return mx::array(
      {order.place.shape(0), y.shape(1)},
      mx::float32,
      std::make_shared<MixSlots>(*cpu),
      {y, order.place, scores, order.slot});
}

}  // namespace pennyweight::ops
