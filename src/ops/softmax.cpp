#include <mlx/ops.h>

#include "ops/check.h"
#include "ops/primitive.h"

namespace pennyweight::ops {

namespace {

void check_rows(const mx::array& x, const char* where) {
  require_floating(x, where, "x");
  require(
      x.ndim() >= 1 && x.shape(-1) > 0,
      where,
      "x " + describe(x) + " has no values along its last axis");
}

mx::array softmax_by_mlx(const Arrays& in) {
  return mx::softmax(in[0], -1, /* precise = */ true);
}

}  // namespace

mx::array softmax(const mx::array& x) {
  check_rows(x, "softmax");
  return make({
      .name = "softmax",
      .shape = x.shape(),
      .dtype = x.dtype(),
      .inputs = {x},
      .fallback = softmax_by_mlx,
      .cpu = [](CpuWork& work) -> Task {
        const kernels::SoftmaxArgs args{
            .rows = work.rows(0),
            .columns = work.columns(0),
            .x = work.matrix(0),
            .out = work.result_over({0})};
        return [args] { kernels::softmax(args); };
      },
      .vjp =
          [](const Arrays& in, const mx::array& dy) {
            return gradient_through(softmax_by_mlx, in, dy);
          },
  });
}

}  // namespace pennyweight::ops
