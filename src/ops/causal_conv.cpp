#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "ops/check.h"
#include "ops/gated_delta.h"
#include "ops/primitive.h"

namespace pennyweight::ops {

namespace {

mx::array by_mlx(const Arrays& in, bool silu) {
  const auto& x = in[0];
  const int width = in[1].shape(1);
  // conv1d pads both sides with zeros: the results behind the end are cut off.
  auto sums = mx::conv1d(
      as_float32(x),
      mx::expand_dims(as_float32(in[1]), 2),
      1,
      width - 1,
      1,
      x.shape(2));
  sums = mx::slice(sums, {0, 0, 0}, x.shape());
  if (in.size() > 2) {
    sums = mx::add(sums, as_float32(in[2]));
  }
  if (silu) {
    sums = sums * mx::sigmoid(sums);
  }
  return mx::astype(sums, x.dtype());
}

mx::array reversed_in_time(const mx::array& y) {
  return mx::slice(
      y,
      {0, y.shape(1) - 1, 0},
      {y.shape(0), -y.shape(1) - 1, y.shape(2)},
      {1, -1, 1});
}

/// A position's gradient comes from the positions behind it that have seen it:
/// that is the same convolution, of the sums' gradient reversed in time.
mx::array gradient_by_x(const Arrays& in, const mx::array& dy, bool silu) {
  const auto& x = in[0];
  const auto& weight = in[1];
  auto by_sums = as_float32(dy);
  if (silu) {
    const auto bias = in.size() > 2 ? std::optional(in[2]) : std::nullopt;
    const auto sums = causal_conv(as_float32(x), weight, false, bias);
    const auto ones =
        mx::contiguous(mx::broadcast_to(mx::array(1.0f), sums.shape()));
    const auto silu_of = [&](const Arrays& gate) {
      return Arrays{swiglu(gate[0], ones)};
    };
    by_sums = mx::vjp(silu_of, {sums}, {by_sums}).second[0];
  }
  const auto back = causal_conv(
      mx::contiguous(reversed_in_time(by_sums)), as_float32(weight));
  return mx::astype(reversed_in_time(back), x.dtype());
}

}  // namespace

mx::array causal_conv(
    const mx::array& x,
    const mx::array& weight,
    bool silu,
    const std::optional<mx::array>& bias) {
  const char* where = "causal_conv";
  require_floating(x, where, "x");
  require_floating(weight, where, "weight");
  require(
      x.ndim() == 3 && weight.ndim() == 2 && x.shape(2) == weight.shape(0) &&
          weight.shape(1) > 0,
      where,
      "x " + describe(x) + " is not [batch, length, channels] for the weight " +
          describe(weight) + " [channels, width]");
  Arrays inputs{x, weight};
  if (bias) {
    require_floating(*bias, where, "bias");
    require(
        bias->shape() == mx::Shape{x.shape(2)},
        where,
        "bias " + describe(*bias) + " is not [channels] for x " + describe(x));
    inputs.push_back(*bias);
  }
  const auto fallback = [silu](const Arrays& in) { return by_mlx(in, silu); };
  return make({
      .name = where,
      .shape = x.shape(),
      .dtype = x.dtype(),
      .inputs = std::move(inputs),
      .fallback = fallback,
      .cpu = [silu](CpuWork& work) -> Task {
        const auto x = work.heads(0);  // [batch, length, channels]
        const bool biased = work.count() > 2;
        const kernels::CausalConvArgs args{
            .batch = work.size(0, 0),
            .length = work.size(0, 1),
            .channels = work.size(0, 2),
            .width = work.size(1, 1),
            .silu = silu,
            .type = work.type(0),
            .x = x.data,
            .x_batch_stride = x.batch_stride,
            .x_row_stride = x.row_stride,
            .weight = work.vector(1),
            .bias = biased ? work.vector(2) : kernels::ConstVector{},
            .out = work.result().data};
        return [args] { kernels::causal_conv(args); };
      },
      .vjp = [=](const Arrays& in, const mx::array& dy) -> GradientOf {
        return [=](size_t i) {
          return i == 0 ? gradient_by_x(in, dy, silu)
                        : gradient_through(fallback, in, dy)(i);
        };
      },
  });
}

}  // namespace pennyweight::ops
