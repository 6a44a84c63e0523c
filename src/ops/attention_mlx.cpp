#include <mlx/fast.h>
#include <mlx/ops.h>

#include <limits>

#include "ops/mlx_path.h"

namespace pennyweight::ops::mlx_path {

namespace {

mx::array window_mask(int queries, int keys, const AttentionOptions& options) {
  const auto row =
      mx::expand_dims(mx::arange(keys - queries, keys, mx::int32), 1);
  const auto column = mx::expand_dims(mx::arange(0, keys, mx::int32), 0);
  const auto distance = mx::subtract(row, column);
  const auto window = mx::array(options.window, mx::int32);
  auto mask = mx::less(mx::abs(distance), window);
  if (options.causal) {
    const auto zero = mx::array(0, mx::int32);
    mask = mx::logical_and(mask, mx::greater_equal(distance, zero));
  }
  return mask;
}

// With every score in memory: MLX's own attention knows no cap.
mx::array capped_attention(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionOptions& options) {
  const int group = q.shape(2) / k.shape(2);
  const auto heads_first = [&](const mx::array& x, int repeat) {
    auto wide = mx::transpose(mx::astype(x, mx::float32), {0, 2, 1, 3});
    return repeat == 1 ? wide : mx::repeat(wide, repeat, 1);
  };
  const auto cap = mx::array(options.cap);
  auto scores = mx::multiply(
      mx::matmul(
          heads_first(q, 1), mx::swapaxes(heads_first(k, group), -1, -2)),
      mx::array(options.scale / options.cap));
  scores = mx::multiply(cap, mx::tanh(scores));
  if (options.causal || options.window > 0) {
    auto seen = options;
    seen.window = options.window > 0 ? options.window : k.shape(1);
    scores = mx::where(
        window_mask(q.shape(1), k.shape(1), seen),
        scores,
        mx::array(-std::numeric_limits<float>::infinity()));
  }
  if (options.sinks) {
    auto sinks = mx::broadcast_to(
        mx::reshape(*options.sinks, {1, q.shape(2), 1, 1}),
        {q.shape(0), q.shape(2), q.shape(1), 1});
    scores = mx::concatenate({scores, sinks}, -1);
  }
  auto weights = mx::softmax(scores, -1, true);
  weights = mx::slice(
      weights, {0, 0, 0, 0}, {q.shape(0), q.shape(2), q.shape(1), k.shape(1)});
  auto mixed = mx::matmul(weights, heads_first(v, group));
  return mx::astype(mx::transpose(mixed, {0, 2, 1, 3}), q.dtype());
}

}  // namespace

mx::array attention(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionOptions& options) {
  if (options.cap > 0) {
    return capped_attention(q, k, v, options);
  }
  const bool windowed = options.window > 0 && options.window < k.shape(1);
  std::optional<mx::array> mask;
  if (windowed) {
    mask = window_mask(q.shape(1), k.shape(1), options);
  }
  const auto heads_first = [](const mx::array& x) {
    return mx::transpose(x, {0, 2, 1, 3});
  };
  auto result = mx::fast::scaled_dot_product_attention(
      heads_first(q),
      heads_first(k),
      heads_first(v),
      options.scale,
      options.causal && !windowed ? "causal" : "",
      mask,
      options.sinks ? std::optional(mx::astype(*options.sinks, q.dtype()))
                    : std::nullopt);
  return heads_first(result);
}

}  // namespace pennyweight::ops::mlx_path
