// Latent attention: queries, keys and values by way of a latent (LatentSpec).

#include <mlx/ops.h>

#include "core/error.h"
#include "model/blocks/attention_parts.h"

namespace pennyweight {

namespace {

mx::array query_latent(
    const LatentSpec& latent,
    const BlockWeights& weights,
    const mx::array& input,
    mx::Dtype dtype) {
  auto q = weights.linears.at(latent.q_a->path)(input);
  return normed(*latent.q_norm, weights, q, dtype);
}

// Of what kv_a gives.
mx::array value_latent(
    const LatentSpec& latent,
    const BlockWeights& weights,
    const mx::array& down,
    mx::Dtype dtype) {
  return normed(
      latent.kv_norm, weights, last_axis(down, 0, latent.rank), dtype);
}

mx::array latent_queries(
    const AttentionSpec& attention,
    const BlockWeights& weights,
    const mx::array& input,
    mx::Dtype dtype) {
  const auto& latent = *attention.latent;
  if (!latent.q_a) {
    return weights.linears.at(attention.q.path)(input);
  }
  return weights.linears.at(latent.q_b->path)(
      query_latent(latent, weights, input, dtype));
}

// Keys without their rotated channels, and values, of each head; made of the
// normed latent.
Heads expand_latent(
    const AttentionSpec& attention,
    const BlockWeights& weights,
    const mx::array& q,
    const mx::array& latent) {
  const auto& spec = *attention.latent;
  if (spec.kv_b) {
    auto kv = split_heads(
        weights.linears.at(spec.kv_b->path)(latent),
        attention.heads,
        spec.nope_dim + spec.value_dim);
    return {
        q,
        last_axis(kv, 0, spec.nope_dim),
        last_axis(kv, spec.nope_dim, kv.shape(-1))};
  }
  std::vector<mx::array> keys, values;
  for (int h = 0; h < attention.heads; ++h) {
    const auto& key = weights.linears.at(part_path(spec.key->path, h));
    const auto& value = weights.linears.at(part_path(spec.value->path, h));
    const auto dense =
        key.dense ? *key.dense : ops::dequantize(*key.packed, latent.dtype());
    keys.push_back(watched(
        key.trace, latent, ops::linear(latent, mx::transpose(dense)), true));
    weights.see("the output of " + spec.key->path, keys.back());
    values.push_back(value(latent));
  }
  return {q, mx::stack(keys, 2), mx::stack(values, 2)};
}

}  // namespace

Heads latent_heads(
    const AttentionSpec& attention,
    const BlockWeights& weights,
    const mx::array& input,
    int offset,
    mx::Dtype dtype) {
  const auto& spec = *attention.latent;
  if (const int keys = offset + input.shape(1);
      spec.indexer && keys > spec.indexer->most) {
    throw not_supported_error(
        "model",
        "a text of " + std::to_string(keys) + " tokens: beyond " +
            std::to_string(spec.indexer->most) +
            " (index_topk) this family attends to some of them alone, which "
            "is not known here; take shorter sequences");
  }
  auto q = split_heads(
      latent_queries(attention, weights, input, dtype),
      attention.heads,
      attention.head_dim);
  auto down = weights.linears.at(spec.kv_a.path)(input);
  auto latent = value_latent(spec, weights, down, dtype);
  auto shared =
      split_heads(last_axis(down, spec.rank, down.shape(-1)), 1, spec.rope_dim);
  auto heads = expand_latent(attention, weights, q, latent);
  shared = mx::repeat(rotated(attention, shared, offset), attention.heads, 2);
  heads.q = mx::concatenate(
      {last_axis(q, 0, spec.nope_dim),
       rotated(attention, last_axis(q, spec.nope_dim, q.shape(-1)), offset)},
      -1);
  heads.k = mx::concatenate({heads.k, shared}, -1);
  // Attention wants values of the keys' size; what is added is cut off.
  const int more = heads.k.shape(-1) - heads.v.shape(-1);
  heads.v = mx::pad(heads.v, {{0, 0}, {0, 0}, {0, 0}, {0, more}});
  return heads;
}

mx::array latent_input(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& input,
    BlockInput which,
    int64_t part,
    const ForwardContext& context) {
  const auto& latent = *spec.attention.latent;
  if (which == BlockInput::query_latent) {
    return query_latent(latent, weights, input, context.dtype);
  }
  if (which == BlockInput::value_latent) {
    auto down = weights.linears.at(latent.kv_a.path)(input);
    return value_latent(latent, weights, down, context.dtype);
  }
  auto q = latent_queries(spec.attention, weights, input, context.dtype);
  const int first = static_cast<int>(part) * spec.attention.head_dim;
  return last_axis(q, first, first + latent.nope_dim);
}

}  // namespace pennyweight
