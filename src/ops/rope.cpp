#include <mlx/fast.h>
#include <mlx/ops.h>

#include "ops/check.h"
#include "ops/primitive.h"

namespace pennyweight::ops {

namespace {

/// A RopeTable but for its frequencies, which are an input.
struct Rotation {
  int dims;
  bool traditional;
  float input_scale;
  int offset;
};

mx::array by_mlx(const Arrays& in, const Rotation& how) {
  auto rows = mx::transpose(in[0], {0, 2, 1, 3});
  if (how.input_scale != 1.0f) {
    auto parts = mx::split(rows, mx::Shape{how.dims}, -1);
    const mx::array scale(how.input_scale, rows.dtype());
    parts[0] = parts[0] * scale;
    rows = mx::concatenate(std::move(parts), -1);
  }
  const auto rotated = mx::fast::rope(
      rows,
      how.dims,
      how.traditional,
      std::nullopt,
      1.0f,
      how.offset,
      mx::reciprocal(in[1]));
  return mx::transpose(rotated, {0, 2, 1, 3});
}

mx::array
rotate(const mx::array& x, const mx::array& frequencies, const Rotation& how) {
  return make({
      .name = "rope",
      .shape = x.shape(),
      .dtype = x.dtype(),
      .inputs = {x, frequencies},
      .fallback = [how](const Arrays& in) { return by_mlx(in, how); },
      .cpu = [how](CpuWork& work) -> Task {
        const auto x = work.heads(0);
        const kernels::RopeArgs args{
            .batch = work.size(0, 0),
            .length = work.size(0, 1),
            .heads = work.size(0, 2),
            .head_dim = work.size(0, 3),
            .dims = how.dims,
            .traditional = how.traditional,
            .input_scale = how.input_scale,
            .offset = how.offset,
            .frequencies = work.data<float>(1),
            .type = work.type(0),
            .x = x.data,
            .x_batch_stride = x.batch_stride,
            .x_row_stride = x.row_stride,
            .x_head_stride = x.head_stride,
            .out = work.result().data};
        return [args] { kernels::rope(args); };
      },
      .vjp = [how](const Arrays& in, const mx::array& dy) -> GradientOf {
        return [=](size_t i) {
          if (i != 0) {
            no_gradient(
                "rope", "frequencies have no gradient; ask for that of x");
          }
          // The gradient is rotated back by the same angles.
          return rotate(
              mx::astype(dy, in[0].dtype()), mx::negative(in[1]), how);
        };
      },
  });
}

}  // namespace

mx::array rope(const mx::array& x, const RopeTable& table, int offset) {
  const char* where = "rope";
  require_floating(x, where, "x");
  require(
      x.ndim() == 4,
      where,
      "x is " + describe(x) +
          "; it has to be [batch, length, heads, head_dim]");
  require(
      table.dims > 0 && table.dims % 2 == 0 && table.dims <= x.shape(3),
      where,
      std::to_string(table.dims) + " rotated dimensions do not fit x " +
          describe(x));
  require(
      table.frequencies.dtype() == mx::float32 &&
          table.frequencies.shape() == mx::Shape{table.dims / 2},
      where,
      "the frequencies are " + describe(table.frequencies) +
          "; they have to be float32 [dims / 2]");
  require(offset >= 0, where, "the offset is negative");
  return rotate(
      x,
      table.frequencies,
      {table.dims, table.traditional, table.input_scale, offset});
}

}  // namespace pennyweight::ops
