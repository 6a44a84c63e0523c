#include <mlx/ops.h>

#include "ops/mlx_path.h"

namespace pennyweight::ops::mlx_path {

namespace {

/// MLX's matmul rounds to its inputs' type, so a wider result needs wider
/// inputs.
mx::Dtype compute_type(mx::Dtype x, mx::Dtype weight, mx::Dtype out) {
  return mx::promote_types(mx::promote_types(x, weight), out);
}

mx::array add_bias(
    mx::array result,
    const std::optional<mx::array>& bias,
    mx::Dtype out_dtype) {
  if (bias) {
    result = mx::add(result, *bias);
  }
  return mx::astype(result, out_dtype);
}

}  // namespace

mx::array linear(
    const mx::array& x,
    const mx::array& weight,
    const std::optional<mx::array>& bias,
    mx::Dtype out_dtype) {
  const auto type = compute_type(x.dtype(), weight.dtype(), out_dtype);
  return add_bias(
      mx::matmul(mx::astype(x, type), mx::transpose(mx::astype(weight, type))),
      bias,
      out_dtype);
}

mx::array dequantize(const QuantizedWeight& weight, mx::Dtype dtype) {
  if (weight.mode != "affine") {
    return mx::astype(
        mx::dequantize(
            weight.codes,
            weight.scales,
            std::nullopt,
            weight.group_size,
            weight.bits,
            weight.mode,
            std::nullopt,
            mx::float32),
        dtype);
  }
  return mx::astype(
      mx::dequantize(
          weight.codes,
          mx::astype(weight.scales, mx::float32),
          mx::astype(*weight.biases, mx::float32),
          weight.group_size,
          weight.bits),
      dtype);
}

GroupGradients group_gradients(
    const QuantizedWeight& weight,
    const mx::array& dw) {
  const auto shape = weight.scales.shape();
  const auto codes = mx::dequantize(
      weight.codes,
      mx::ones(shape, mx::float32),
      mx::zeros(shape, mx::float32),
      weight.group_size,
      weight.bits);
  const auto sums = [&](const mx::array& x) {
    return mx::sum(mx::reshape(x, {shape[0], shape[1], weight.group_size}), -1);
  };
  return {sums(mx::multiply(dw, codes)), sums(dw)};
}

mx::array quantized_linear(
    const mx::array& x,
    const QuantizedWeight& weight,
    const std::optional<mx::array>& bias,
    mx::Dtype out_dtype) {
  const auto type = mx::promote_types(x.dtype(), out_dtype);
  auto scales = weight.scales;
  auto biases = weight.biases;
  if (weight.mode == "affine") {
    scales = mx::astype(scales, type);
    biases = mx::astype(*biases, type);
  }
  return add_bias(
      mx::quantized_matmul(
          mx::astype(x, type),
          weight.codes,
          scales,
          biases,
          /* transpose = */ true,
          weight.group_size,
          weight.bits,
          weight.mode),
      bias,
      out_dtype);
}

}  // namespace pennyweight::ops::mlx_path
