#include "ops/linear.h"

#include <mlx/ops.h>

#include "ops/check.h"

namespace pennyweight::ops {

namespace {

mx::array linear_op(
    const mx::array& x,
    const mx::array& weight,
    const std::optional<mx::array>& bias,
    const std::optional<mx::array>& residual,
    mx::Dtype dtype) {
  Arrays inputs{x, weight};
  const LinearExtras extras(inputs, bias, residual);
  return make({
      .name = "linear",
      .shape = with_last(x, weight.shape(0)),
      .dtype = dtype,
      .inputs = std::move(inputs),
      .fallback =
          [=](const Arrays& in) {
            // MLX's matmul rounds to its inputs' type, so a wider result needs
            // wider inputs.
            const auto type = mx::promote_types(
                mx::promote_types(in[0].dtype(), in[1].dtype()),
                extras.product_type(dtype));
            const auto product = mx::matmul(
                mx::astype(in[0], type),
                mx::transpose(mx::astype(in[1], type)));
            return extras.add_to(product, in, dtype);
          },
      .cpu = [=](CpuWork& work) -> Task {
        kernels::MatmulArgs args{
            .m = work.rows(0),
            .n = work.size(1, 0),
            .k = work.size(1, 1),
            .x = work.matrix(0),
            .weight = work.matrix(1)};
        extras.fill(work, args);
        return [args] { kernels::matmul(args); };
      },
      .vjp = [=](const Arrays& in, const mx::array& dy) -> GradientOf {
        return [=](size_t i) {
          const auto own = mx::astype(dy, in[0].dtype());
          return i == 0 ? linear_transposed(own, in[1])
              : i == 1  ? weight_gradient(own, in[0])
                        : extras.gradient(in, dy, i);
        };
      },
  });
}

}  // namespace

mx::array LinearExtras::add_to(
    mx::array product,
    const Arrays& inputs,
    mx::Dtype out) const {
  if (bias_) {
    product = product + inputs[first_];
  }
  if (residual_) {
    product = inputs[at_residual()] + as_float32(product);
  }
  return mx::astype(product, out);
}

mx::array LinearExtras::gradient(
    const Arrays& inputs,
    const mx::array& dy,
    size_t i) const {
  if (residual_ && i == at_residual()) {
    return mx::astype(dy, inputs[i].dtype());
  }
  const int columns = dy.shape(-1);  // not -1 rows: there may be none
  const auto rows = mx::reshape(dy, {int(dy.size()) / columns, columns});
  return mx::astype(mx::sum(as_float32(rows), 0), inputs[i].dtype());
}

mx::array linear(
    const mx::array& x,
    const mx::array& weight,
    const std::optional<mx::array>& bias,
    std::optional<mx::Dtype> out_dtype) {
  check_linear(x, weight, bias);
  const auto type = out_dtype.value_or(x.dtype());
  require_floating(type, "linear");
  return linear_op(x, weight, bias, std::nullopt, type);
}

mx::array linear_add(
    const mx::array& residual,
    const mx::array& x,
    const mx::array& weight,
    const std::optional<mx::array>& bias) {
  check_linear(x, weight, bias);
  check_residual(residual, x, weight.shape(0), "linear_add");
  return linear_op(x, weight, bias, residual, residual.dtype());
}

mx::array linear_transposed(const mx::array& dy, const mx::array& weight) {
  return make({
      .name = "linear_transposed",
      .shape = with_last(dy, weight.shape(1)),
      .dtype = dy.dtype(),
      .inputs = {dy, weight},
      .fallback =
          [](const Arrays& in) {
            return mx::matmul(in[0], mx::astype(in[1], in[0].dtype()));
          },
      .cpu = [](CpuWork& work) -> Task {
        const kernels::MatmulArgs args{
            .m = work.rows(0),
            .n = work.size(1, 1),
            .k = work.size(1, 0),
            .x = work.matrix(0),
            .weight = work.matrix(1),
            .out = work.result(),
            .weight_by_depth = true};
        return [args] { kernels::matmul(args); };
      },
  });
}

mx::array weight_gradient(const mx::array& dy, const mx::array& x) {
  return make({
      .name = "weight_gradient",
      .shape = {dy.shape(-1), x.shape(-1)},
      .dtype = mx::float32,
      .inputs = {dy, x},
      .fallback =
          [](const Arrays& in) {
            const auto flat = [](const mx::array& a) {
              return as_float32(mx::reshape(a, {-1, a.shape(-1)}));
            };
            return mx::matmul(mx::transpose(flat(in[0])), flat(in[1]));
          },
      .cpu = [](CpuWork& work) -> Task {
        const kernels::GramArgs args{
            .rows = work.rows(1),
            .n = work.columns(1),
            .b = work.matrix(1),
            .parts = {{work.columns(0), work.matrix(0)}},
            .out = work.zeros()};
        return [args] { kernels::gram(args); };
      },
  });
}

}  // namespace pennyweight::ops
