#include "model/decoder.h"

#include <mlx/ops.h>

#include "core/error.h"

namespace pennyweight {

namespace {

constexpr int kCacheStep = 256;

// Grows the buffer by whole steps and writes `fresh` behind what is there.
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

mx::array split_heads(const mx::array& x, int heads, int head_dim) {
  return mx::reshape(x, {x.shape(0), x.shape(1), heads, head_dim});
}

mx::array normed(
    const NormSpec& norm,
    const BlockWeights& weights,
    const mx::array& x,
    mx::Dtype dtype) {
  return ops::rms_norm(x, weights.norms.at(norm.path), norm.eps, dtype);
}

}  // namespace

mx::array embed(const OuterWeights& weights, const mx::array& tokens) {
  const auto& table = weights.embedding;
  if (table.dense) {
    return mx::astype(mx::take(*table.dense, tokens, 0), mx::float32);
  }
  auto flat = mx::flatten(tokens);
  auto pick = [&](const mx::array& rows) { return mx::take(rows, flat, 0); };
  ops::QuantizedWeight rows = *table.packed;
  rows.codes = pick(rows.codes);
  rows.scales = pick(rows.scales);
  if (rows.biases) {
    rows.biases = pick(*rows.biases);
  }
  auto dense = ops::dequantize(rows, mx::float32);
  return mx::reshape(dense, {tokens.shape(0), tokens.shape(1), dense.shape(1)});
}

mx::array attention_input(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const ForwardContext& context) {
  return normed(spec.attention_norm, weights, x, context.dtype);
}

mx::array attention_mixed(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& input,
    const ForwardContext& context) {
  const AttentionSpec& attention = spec.attention;
  auto project = [&](const LinearSpec& linear, int heads) {
    auto out = weights.linears.at(linear.path)(input);
    return split_heads(out, heads, attention.head_dim);
  };
  auto q = project(attention.q, attention.heads);
  auto k = project(attention.k, attention.kv_heads);
  auto v = project(attention.v, attention.kv_heads);
  if (attention.q_norm) {
    q = normed(*attention.q_norm, weights, q, context.dtype);
    k = normed(*attention.k_norm, weights, k, context.dtype);
  }
  int offset = context.cache ? context.cache->length : 0;
  int length = input.shape(1);
  auto table = make_rope_table(attention.rope, offset + length);
  q = ops::rope(q, table, offset);
  k = ops::rope(k, table, offset);
  if (context.cache) {
    k = append(context.cache->keys, k, offset);
    v = append(context.cache->values, v, offset);
    context.cache->length = offset + length;
  }
  auto mixed = ops::attention(
      q, k, v, {.scale = attention.scale, .window = attention.window});
  return mx::reshape(
      mixed, {input.shape(0), length, attention.heads * attention.head_dim});
}

mx::array mlp_input(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const ForwardContext& context) {
  return normed(spec.mlp_norm, weights, x, context.dtype);
}

mx::array mlp_wide(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& input) {
  auto gate = weights.linears.at(spec.mlp.gate.path)(input);
  auto up = weights.linears.at(spec.mlp.up.path)(input);
  return ops::swiglu(gate, up);
}

mx::array run_attention(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const ForwardContext& context) {
  auto input = attention_input(spec, weights, x, context);
  auto mixed = attention_mixed(spec, weights, input, context);
  return weights.linears.at(spec.attention.o.path).add_to(x, mixed);
}

mx::array run_mlp(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const ForwardContext& context) {
  auto input = mlp_input(spec, weights, x, context);
  auto wide = mlp_wide(spec, weights, input);
  return weights.linears.at(spec.mlp.down.path).add_to(x, wide);
}

mx::array run_block(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const ForwardContext& context) {
  auto h = run_attention(spec, weights, x, context);
  return run_mlp(spec, weights, h, context);
}

mx::array final_norm(
    const DecoderSpec& spec,
    const OuterWeights& weights,
    const mx::array& x,
    mx::Dtype dtype) {
  return ops::rms_norm(x, weights.final_norm, spec.final_norm.eps, dtype);
}

mx::array head_tile(
    const OuterWeights& weights,
    const mx::array& x,
    int first,
    int count) {
  return weights.head.rows(first, count)(x, mx::float32);
}

mx::array logits(const Model& model, const mx::array& tokens, mx::Dtype dtype) {
  auto outer = load_outer(model, dtype);
  auto x = embed(outer, tokens);
  ForwardContext context{.dtype = dtype};
  for (const BlockSpec& block : model.spec.blocks) {
    x = run_block(block, load_block(model, block.index, dtype), x, context);
  }
  auto normal = final_norm(model.spec, outer, x, dtype);
  return head_tile(outer, normal, 0, static_cast<int>(model.spec.vocab));
}

}  // namespace pennyweight
