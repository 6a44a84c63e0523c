#include <mlx/ops.h>

#include "model/blocks/block_parts.h"
#include "ops/gated_delta.h"

namespace pennyweight {

namespace {

struct Projections {
  mx::array qkv;   // [batch, length, channels of the convolution]
  mx::array z;     // [batch, length, heads, value_dim]
  mx::array b, a;  // [batch, length, heads]
};

Projections project(
    const DeltaSpec& spec,
    const BlockWeights& weights,
    const mx::array& input) {
  const auto apply = [&](const std::optional<LinearSpec>& linear) {
    return weights.linears.at(linear->path)(input);
  };
  if (!spec.qkvz) {
    return {
        apply(spec.qkv),
        split_heads(apply(spec.z), spec.heads, spec.value_dim),
        apply(spec.b),
        apply(spec.a)};
  }
  const int group = spec.heads / spec.key_heads;
  const int values = group * spec.value_dim;
  const auto wide = split_heads(
      apply(spec.qkvz), spec.key_heads, 2 * spec.key_dim + 2 * values);
  const auto part = [&](int first, int count) {
    return mx::flatten(last_axis(wide, first, first + count), 2, 3);
  };
  const auto gates = split_heads(apply(spec.ba), spec.key_heads, 2 * group);
  const int v = 2 * spec.key_dim;
  return {
      mx::concatenate(
          {part(0, spec.key_dim),
           part(spec.key_dim, spec.key_dim),
           part(v, values)},
          -1),
      split_heads(part(v + values, values), spec.heads, spec.value_dim),
      mx::flatten(last_axis(gates, 0, group), 2, 3),
      mx::flatten(last_axis(gates, group, 2 * group), 2, 3)};
}

}  // namespace

mx::array delta_mixed(
    const DeltaSpec& spec,
    const BlockWeights& weights,
    const mx::array& input,
    const ForwardContext& context) {
  const auto parts = project(spec, weights, whole_input(input, context));
  const auto conv = mx::squeeze(weights.parameters.at(spec.conv.name), -1);
  const auto mixed =
      ops::causal_conv(parts.qkv, mx::astype(conv, parts.qkv.dtype()), true);
  weights.see("the output of " + module_of(spec.conv.name), mixed);
  const int keys = spec.key_heads * spec.key_dim;
  const auto heads = ops::normalize_keys(
      split_heads(last_axis(mixed, 0, keys), spec.key_heads, spec.key_dim),
      split_heads(
          last_axis(mixed, keys, 2 * keys), spec.key_heads, spec.key_dim));
  const auto values = split_heads(
      last_axis(mixed, 2 * keys, mixed.shape(-1)), spec.heads, spec.value_dim);
  const auto gates = ops::delta_gates(
      parts.a,
      parts.b,
      weights.parameters.at(spec.a_log.name),
      weights.parameters.at(spec.dt_bias.name));
  auto out = ops::gated_delta(heads.q, heads.k, values, gates.g, gates.beta);
  weights.see("what linear attention gives before " + spec.norm.path, out);
  out = ops::swiglu(
      mx::contiguous(parts.z), normed(spec.norm, weights, out, context.dtype));
  weights.see("the gated output of " + spec.norm.path, out);
  return newest(mx::flatten(out, 2, 3), input.shape(1));
}

}  // namespace pennyweight
