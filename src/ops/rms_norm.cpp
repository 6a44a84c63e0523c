#include <mlx/fast.h>
#include <mlx/ops.h>

#include "ops/check.h"
#include "ops/primitive.h"

namespace pennyweight::ops {

namespace {

/// How many weights take turns; see kernels::RmsNormArgs.
int64_t weights_of(CpuWork& work) {
  return work.rows(1);
}

mx::array backward(
    const mx::array& x,
    const mx::array& weight,
    const mx::array& dy,
    float eps) {
  return make({
      .name = "rms_norm_backward",
      .shape = x.shape(),
      .dtype = x.dtype(),
      .inputs = {x, weight, dy},
      .cpu = [eps](CpuWork& work) -> Task {
        const kernels::RmsNormBackwardArgs args{
            .rows = work.rows(0),
            .columns = work.columns(0),
            .eps = eps,
            .x = work.matrix(0),
            .weight = work.vector(1),
            .dy = work.matrix(2),
            .dx = work.result(),
            .weights = weights_of(work)};
        return [args] { kernels::rms_norm_backward(args); };
      },
  });
}

}  // namespace

mx::array rms_norm(
    const mx::array& x,
    const mx::array& weight,
    float eps,
    std::optional<mx::Dtype> out_dtype) {
  const char* where = "rms_norm";
  require_floating(x, where, "x");
  require_floating(weight, where, "weight");
  require(
      x.ndim() >= weight.ndim() && (weight.ndim() == 1 || weight.ndim() == 2) &&
          weight.shape(-1) == x.shape(-1) && x.shape(-1) > 0 &&
          (weight.ndim() == 1 || weight.shape(0) == x.shape(-2)),
      where,
      "the weight " + describe(weight) + " does not fit x " + describe(x));
  const auto type = out_dtype.value_or(x.dtype());
  require_floating(type, where);
  const auto by_mlx = [eps](const Arrays& in) {
    return in[1].ndim() == 1
        ? mx::fast::rms_norm(in[0], in[1], eps)
        : mx::multiply(mx::fast::rms_norm(in[0], std::nullopt, eps), in[1]);
  };
  return make({
      .name = where,
      .shape = x.shape(),
      .dtype = type,
      .inputs = {x, weight},
      .fallback =
          [=](const Arrays& in) { return mx::astype(by_mlx(in), type); },
      .cpu = [eps](CpuWork& work) -> Task {
        const kernels::RmsNormArgs args{
            .rows = work.rows(0),
            .columns = work.columns(0),
            .eps = eps,
            .x = work.matrix(0),
            .weight = work.vector(1),
            .out = work.result(),
            .weights = weights_of(work)};
        return [args] { kernels::rms_norm(args); };
      },
      .vjp = [=](const Arrays& in, const mx::array& dy) -> GradientOf {
        return [=](size_t i) {
          if (i == 0) {
            return backward(in[0], in[1], dy, eps);
          }
          const auto wide = [&](const Arrays& all) {
            return as_float32(by_mlx(all));
          };
          return gradient_through(wide, in, as_float32(dy))(i);
        };
      },
  });
}

}  // namespace pennyweight::ops
