#include <mlx/ops.h>

#include <string>

#include "ops/check.h"
#include "ops/head_side.h"
#include "ops/kl_head.h"
#include "ops/mlx_path.h"

namespace pennyweight::ops {

namespace {

using Arrays = std::vector<mx::array>;

/// uint32 [2 * rows, count]: columns, then the bits of the values.
class TopLogitsOp : public HeadPrimitive {
 public:
  TopLogitsOp(mx::Stream stream, SideParts parts)
      : HeadPrimitive(stream), parts_(parts) {}

  const char* name() const override {
    return "pennyweight::TopLogits";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    allocate(out);
    const int64_t count = out.shape(1);
    size_t next = 0;
    const kernels::TopHeadArgs args{
        .rows = inputs[0].shape(0),
        .columns = inputs[1].shape(0),
        .count = count,
        .head = side_of(parts_, inputs, next),
        .values =
            {out.data<uint32_t>() + out.size() / 2, kernels::DType::f32, count},
        .indices = out.data<uint32_t>()};
    return [args] { kernels::top_head(args); };
  }

 private:
  SideParts parts_;
};

}  // namespace

TopLogits top_logits(const Head& from, int count, mx::Dtype dtype) {
  const auto tile = from.tile(0, from.vocab);
  const HeadRows head{from.x, tile.weight, tile.bias, from.cap};
  check_linear(head.x, head.weight, head.bias);
  require_floating(dtype, "top_logits");
  require(
      head.x.ndim() == 2 && count >= 1 && count <= from.vocab,
      "top_logits",
      std::to_string(count) + " logits were asked for of " +
          std::to_string(from.vocab));
  const int rows = head.x.shape(0);
  const auto cpu = cpu_stream();
  if (!cpu) {
    const auto logits = mlx_path::head_logits(head);
    const auto order = mx::argpartition(mx::negative(logits), count - 1, -1);
    const auto columns = mx::sort(mx::slice(order, {0, 0}, {rows, count}), -1);
    return {
        mx::astype(mx::take_along_axis(logits, columns, -1), dtype), columns};
  }
  Arrays inputs;
  const auto parts = append_side(inputs, head);
  const mx::array both(
      {2 * rows, count},
      mx::uint32,
      std::make_shared<TopLogitsOp>(*cpu, parts),
      std::move(inputs));
  const auto values = mx::slice(both, {rows, 0}, {2 * rows, count});
  return {
      mx::astype(mx::view(values, mx::float32), dtype),
      mx::slice(both, {0, 0}, {rows, count})};
}

}  // namespace pennyweight::ops
