#include <mlx/ops.h>

#include "ops/check.h"
#include "ops/linear.h"
#include "ops/packed_view.h"

namespace pennyweight::ops {

namespace {

mx::array dense_by_mlx(const QuantizedWeight& weight, mx::Dtype dtype) {
  const bool affine = weight.mode == "affine";
  const auto wide = affine ? mx::dequantize(
                                 weight.codes,
                                 as_float32(weight.scales),
                                 as_float32(*weight.biases),
                                 weight.group_size,
                                 weight.bits)
                           : mx::dequantize(
                                 weight.codes,
                                 weight.scales,
                                 std::nullopt,
                                 weight.group_size,
                                 weight.bits,
                                 weight.mode,
                                 std::nullopt,
                                 mx::float32);
  return mx::astype(wide, dtype);
}

mx::array
product_by_mlx(const mx::array& x, QuantizedWeight weight, mx::Dtype dtype) {
  const auto type = mx::promote_types(x.dtype(), dtype);
  if (weight.biases) {
    weight.scales = mx::astype(weight.scales, type);
    weight.biases = mx::astype(*weight.biases, type);
  }
  return mx::quantized_matmul(
      mx::astype(x, type),
      weight.codes,
      weight.scales,
      weight.biases,
      /* transpose = */ true,
      weight.group_size,
      weight.bits,
      weight.mode);
}

/// The gradients by a packed weight's arrays, given that by the dense weight:
/// codes have none.
class PackedGradients {
 public:
  PackedGradients(const QuantizedWeight& weight, const mx::array& dw)
      : weight_(weight) {
    if (weight.biases) {
      groups_ = group_gradients(weight, dw);
    }
  }

  /// By codes (0), scales (1) or biases (2).
  mx::array by(size_t which) const {
    if (which == 0) {
      no_gradient(
          "quantized_linear",
          "codes have no gradient; ask for that of scales or biases");
    }
    check_affine(weight_);
    return mx::astype(
        which == 1 ? groups_->scales : groups_->biases, weight_.scales.dtype());
  }

 private:
  QuantizedWeight weight_;
  std::optional<GroupGradients> groups_;
};

mx::array quantized_op(
    const mx::array& x,
    const QuantizedWeight& weight,
    const std::optional<mx::array>& bias,
    const std::optional<mx::array>& residual,
    mx::Dtype dtype) {
  const auto format = format_of(weight);
  Arrays inputs{x};
  append_weight(inputs, weight);
  const LinearExtras extras(inputs, bias, residual);
  return make({
      .name = "quantized_linear",
      .shape = with_last(x, weight.codes.shape(0)),
      .dtype = dtype,
      .inputs = std::move(inputs),
      .fallback =
          [=](const Arrays& in) {
            const auto product = product_by_mlx(
                in[0], weight_from(format, in, 1), extras.product_type(dtype));
            return extras.add_to(product, in, dtype);
          },
      .cpu = [=](CpuWork& work) -> Task {
        kernels::QuantizedMatmulArgs args{
            .m = work.rows(0),
            .x = work.matrix(0),
            .weight = packed_view(format, work, 1)};
        extras.fill(work, args);
        return [args] { kernels::quantized_matmul(args); };
      },
      .vjp = [=](const Arrays& in, const mx::array& dy) -> GradientOf {
        const auto own = mx::astype(dy, in[0].dtype());
        const auto weight = weight_from(format, in, 1);
        const PackedGradients packed(weight, weight_gradient(own, in[0]));
        return [=](size_t i) {
          return i == 0
              ? linear_transposed(own, dequantize(weight, in[0].dtype()))
              : i <= format.arrays() ? packed.by(i - 1)
                                     : extras.gradient(in, dy, i);
        };
      },
  });
}

}  // namespace

mx::array dequantize(const QuantizedWeight& weight, mx::Dtype dtype) {
  check_quantized(weight, "dequantize");
  require_floating(dtype, "dequantize");
  const auto format = format_of(weight);
  Arrays inputs;
  append_weight(inputs, weight);
  return make({
      .name = "dequantize",
      .shape = {weight.codes.shape(0), columns_of(weight)},
      .dtype = dtype,
      .inputs = std::move(inputs),
      .fallback =
          [=](const Arrays& in) {
            return dense_by_mlx(weight_from(format, in, 0), dtype);
          },
      .cpu = [=](CpuWork& work) -> Task {
        const auto view = packed_view(format, work, 0);
        const kernels::DequantizeArgs args{view, 0, view.rows, work.result()};
        return [args] { kernels::dequantize(args); };
      },
      .vjp = [=](const Arrays& in, const mx::array& dy) -> GradientOf {
        const PackedGradients packed(
            weight_from(format, in, 0), as_float32(dy));
        return [=](size_t i) { return packed.by(i); };
      },
  });
}

GroupGradients group_gradients(
    const QuantizedWeight& weight,
    const mx::array& dw) {
  check_quantized(weight, "group_gradients");
  check_affine(weight);
  const int rows = weight.codes.shape(0);
  const int columns = columns_of(weight);
  require(
      dw.dtype() == mx::float32 && dw.shape() == mx::Shape{rows, columns},
      "group_gradients",
      "the gradient " + describe(dw) + " is not the weight's");
  const int groups = columns / weight.group_size;
  // By scales, then by biases.
  const auto both = make({
      .name = "group_gradients",
      .shape = {2, rows, groups},
      .dtype = mx::float32,
      .inputs = {weight.codes, dw},
      .fallback =
          [=, bits = weight.bits, group = weight.group_size](const Arrays& in) {
            const auto codes = mx::dequantize(
                in[0],
                mx::ones({rows, groups}),
                mx::zeros({rows, groups}),
                group,
                bits);
            const auto sums = [&](const mx::array& x) {
              return mx::sum(mx::reshape(x, {rows, groups, group}), -1);
            };
            return mx::stack({sums(in[1] * codes), sums(in[1])});
          },
      .cpu = [bits = weight.bits,
              group = weight.group_size](CpuWork& work) -> Task {
        auto* sums = static_cast<float*>(work.result().data);
        const kernels::GroupGradientArgs args{
            .weight =
                {.bits = bits,
                 .group = group,
                 .rows = work.size(0, 0),
                 .columns = work.size(1, 1),
                 .codes = work.vector(0).data},
            .dw = work.matrix(1),
            .dscales = sums,
            .dbiases = sums + work.out_size() / 2};
        return [args] { kernels::group_gradient(args); };
      },
  });
  return {part_of(both, 0), part_of(both, 1)};
}

mx::array quantized_linear(
    const mx::array& x,
    const QuantizedWeight& weight,
    const std::optional<mx::array>& bias,
    std::optional<mx::Dtype> out_dtype) {
  check_quantized_linear(x, weight, bias);
  const auto type = out_dtype.value_or(x.dtype());
  require_floating(type, "quantized_linear");
  return quantized_op(x, weight, bias, std::nullopt, type);
}

mx::array quantized_linear_add(
    const mx::array& residual,
    const mx::array& x,
    const QuantizedWeight& weight,
    const std::optional<mx::array>& bias) {
  check_quantized_linear(x, weight, bias);
  check_residual(residual, x, weight.codes.shape(0), "quantized_linear_add");
  return quantized_op(x, weight, bias, residual, residual.dtype());
}

}  // namespace pennyweight::ops
