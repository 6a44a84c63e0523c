#include <mlx/fast.h>
#include <mlx/ops.h>

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

}  // namespace

mx::array attention(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionOptions& options) {
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
      mask);
  return heads_first(result);
}

}  // namespace pennyweight::ops::mlx_path
