#include "model/blocks/block_parts.h"

#include <mlx/ops.h>

namespace pennyweight {

namespace {

constexpr int kCacheStep = 256;

}  // namespace

mx::array norm_weight(const NormSpec& norm, const mx::array& stored) {
  return norm.offset == 0
      ? stored
      : mx::add(mx::astype(stored, mx::float32), mx::array(norm.offset));
}

mx::array normed(
    const NormSpec& norm,
    const mx::array& stored,
    const std::optional<mx::array>& bias,
    const mx::array& x,
    mx::Dtype dtype) {
  if (norm.heads > 0) {
    auto own = norm;
    own.heads = 0;
    const auto ones = mx::ones({static_cast<int>(norm.size)}, mx::float32);
    const auto y = mx::multiply(
        normed(own, ones, std::nullopt, x, mx::float32),
        mx::astype(stored, mx::float32));
    return mx::astype(y, dtype);
  }
  const auto weight = norm_weight(norm, stored);
  if (!norm.centered) {
    return ops::rms_norm(x, weight, norm.eps, dtype);
  }
  auto wide = mx::astype(x, mx::float32);
  wide = mx::subtract(wide, mx::mean(wide, -1, true));
  if (!bias) {
    return ops::rms_norm(wide, weight, norm.eps, dtype);
  }
  wide = ops::rms_norm(wide, weight, norm.eps, mx::float32);
  return mx::astype(mx::add(wide, mx::astype(*bias, mx::float32)), dtype);
}

namespace {

mx::array apply_norm(
    const NormSpec& norm,
    const BlockWeights& weights,
    const mx::array& x,
    mx::Dtype dtype) {
  if (norm.bare) {
    const auto ones = mx::ones({static_cast<int>(norm.size)}, mx::float32);
    return normed(norm, ones, std::nullopt, x, dtype);
  }
  return normed(
      norm,
      weights.norms.at(norm.path),
      norm.bias ? std::optional(weights.norms.at(norm.path + ".bias"))
                : std::nullopt,
      x,
      dtype);
}

}  // namespace

mx::array normed(
    const NormSpec& norm,
    const BlockWeights& weights,
    const mx::array& x,
    mx::Dtype dtype) {
  auto y = apply_norm(norm, weights, x, dtype);
  weights.see("the output of " + norm.path, y);
  return y;
}

mx::array before(
    const std::optional<NormSpec>& norm,
    const BlockWeights& weights,
    const mx::array& x,
    mx::Dtype dtype) {
  return norm ? normed(*norm, weights, x, dtype) : mx::astype(x, dtype);
}

mx::array add_part(
    const BlockSpec& spec,
    const std::optional<NormSpec>& norm,
    const BlockWeights& weights,
    const mx::array& residual,
    mx::array part) {
  if (norm) {
    // An infinity that is clipped with the sum does no harm.
    part = spec.clips_residual ? apply_norm(*norm, weights, part, mx::float32)
                               : normed(*norm, weights, part, mx::float32);
  }
  if (spec.residual_scale != 1) {
    part = mx::multiply(part, mx::array(spec.residual_scale));
    weights.see("what is added to the residual stream in " + spec.path, part);
  }
  return mx::add(residual, part);
}

mx::array held_residual(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const std::string& where,
    const mx::array& x) {
  if (!weights.range) {
    return x;
  }
  const auto bound = mx::array(kLargestFloat16);
  auto held = spec.clips_residual ? mx::clip(x, mx::negative(bound), bound) : x;
  weights.see("the residual stream after " + where, held);
  return held;
}

mx::array
append(std::optional<mx::array>& buffer, const mx::array& fresh, int length) {
  int total = length + fresh.shape(1);
  if (!buffer || buffer->shape(1) < total) {
    auto shape = fresh.shape();
    int capacity = (total + kCacheStep - 1) / kCacheStep * kCacheStep;
    shape[1] = capacity - (buffer ? buffer->shape(1) : 0);
    auto room = mx::zeros(shape, fresh.dtype());
    buffer = buffer ? mx::concatenate({*buffer, room}, 1) : room;
  }
  auto start = mx::Shape(4, 0);
  auto stop = buffer->shape();
  start[1] = length;
  stop[1] = total;
  buffer = mx::slice_update(*buffer, fresh, start, stop);
  start[1] = 0;
  return mx::slice(*buffer, start, stop);
}

mx::array whole_input(const mx::array& input, const ForwardContext& context) {
  if (!context.cache) {
    return input;
  }
  auto& cache = *context.cache;
  auto whole =
      append(cache.inputs, mx::expand_dims(input, 2), cache.inputs_length);
  cache.inputs_length += input.shape(1);
  return mx::squeeze(whole, 2);
}

mx::array newest(const mx::array& x, int length) {
  const int total = x.shape(1);
  return total == length
      ? x
      : mx::slice(x, {0, total - length, 0}, {x.shape(0), total, x.shape(2)});
}

mx::array split_heads(const mx::array& x, int heads, int head_dim) {
  return mx::reshape(x, {x.shape(0), x.shape(1), heads, head_dim});
}

mx::array last_axis(const mx::array& x, int first, int end) {
  auto start = mx::Shape(x.ndim(), 0);
  auto stop = x.shape();
  start.back() = first;
  stop.back() = end;
  return mx::slice(x, start, stop);
}

}  // namespace pennyweight
