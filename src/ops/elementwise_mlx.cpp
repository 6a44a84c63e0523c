#include <mlx/fast.h>
#include <mlx/ops.h>

#include "kernels/kernels.h"
#include "ops/mlx_path.h"

namespace pennyweight::ops::mlx_path {

mx::array rms_norm(
    const mx::array& x,
    const mx::array& weight,
    float eps,
    mx::Dtype out_dtype) {
  return mx::astype(mx::fast::rms_norm(x, weight, eps), out_dtype);
}

mx::array rope(const mx::array& x, const RopeTable& table, int offset) {
  auto rows = mx::transpose(x, {0, 2, 1, 3});
  if (table.input_scale != 1.0f) {
    auto parts = mx::split(rows, mx::Shape{table.dims}, -1);
    parts[0] = mx::multiply(parts[0], mx::array(table.input_scale, x.dtype()));
    rows = mx::concatenate(std::move(parts), -1);
  }
  auto rotated = mx::fast::rope(
      rows,
      table.dims,
      table.traditional,
      std::nullopt,
      1.0f,
      offset,
      mx::reciprocal(table.frequencies));
  return mx::transpose(rotated, {0, 2, 1, 3});
}

mx::array swiglu(const mx::array& gate, const mx::array& up) {
  const auto g = mx::astype(gate, mx::float32);
  const auto product =
      mx::multiply(mx::multiply(g, mx::sigmoid(g)), mx::astype(up, g.dtype()));
  return mx::astype(product, gate.dtype());
}

mx::array geglu(const mx::array& gate, const mx::array& up) {
  const auto g = mx::astype(gate, mx::float32);
  const auto cube = mx::multiply(
      mx::array(kernels::kGeluCubic), mx::multiply(g, mx::multiply(g, g)));
  const auto z =
      mx::multiply(mx::array(kernels::kGeluLinear), mx::add(g, cube));
  const auto product =
      mx::multiply(mx::multiply(g, mx::sigmoid(z)), mx::astype(up, g.dtype()));
  return mx::astype(product, gate.dtype());
}

mx::array clipped_glu(const mx::array& gate, const mx::array& up) {
  const mx::array limit(kernels::kClippedAt);
  const auto g = mx::minimum(mx::astype(gate, mx::float32), limit);
  const auto u =
      mx::clip(mx::astype(up, mx::float32), mx::negative(limit), limit);
  const auto sigmoid =
      mx::sigmoid(mx::multiply(g, mx::array(kernels::kClippedSlope)));
  const auto product =
      mx::multiply(mx::multiply(g, sigmoid), mx::add(u, mx::array(1.0f)));
  return mx::astype(product, gate.dtype());
}

mx::array softmax(const mx::array& x) {
  return mx::softmax(x, -1, /* precise = */ true);
}

mx::array logsumexp(const mx::array& x) {
  return mx::logsumexp(mx::astype(x, mx::float32), -1);
}

}  // namespace pennyweight::ops::mlx_path
