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

mx::array norm_weight(const NormSpec& norm, const mx::array& stored) {
  return norm.offset == 0
      ? stored
      : mx::add(mx::astype(stored, mx::float32), mx::array(norm.offset));
}

mx::array normed(
    const NormSpec& norm,
    const BlockWeights& weights,
    const mx::array& x,
    mx::Dtype dtype) {
  return ops::rms_norm(
      x, norm_weight(norm, weights.norms.at(norm.path)), norm.eps, dtype);
}

mx::array before(
    const std::optional<NormSpec>& norm,
    const BlockWeights& weights,
    const mx::array& x,
    mx::Dtype dtype) {
  return norm ? normed(*norm, weights, x, dtype) : mx::astype(x, dtype);
}

mx::array after(
    const BlockSpec& spec,
    const std::optional<NormSpec>& norm,
    const LinearSpec& linear,
    const BlockWeights& weights,
    const mx::array& residual,
    const mx::array& x) {
  const auto& own = weights.linears.at(linear.path);
  if (!norm && spec.residual_scale == 1) {
    return own.add_to(residual, x);
  }
  auto out = own(x, mx::float32);
  if (norm) {
    out = normed(*norm, weights, out, mx::float32);
  }
  if (spec.residual_scale != 1) {
    out = mx::multiply(out, mx::array(spec.residual_scale));
  }
  return mx::add(residual, out);
}

// A full-width norm stands before the split into heads.
bool is_wide(const std::optional<NormSpec>& norm, const AttentionSpec& spec) {
  return norm && norm->size != spec.head_dim;
}

}  // namespace

mx::array embed(const OuterWeights& weights, const mx::array& tokens) {
  const auto& table = weights.embedding;
  const auto scaled = [&](const mx::array& x) {
    return weights.embedding_scale == 1
        ? x
        : mx::multiply(x, mx::array(weights.embedding_scale));
  };
  if (table.dense) {
    return scaled(mx::astype(mx::take(*table.dense, tokens, 0), mx::float32));
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
  return scaled(
      mx::reshape(dense, {tokens.shape(0), tokens.shape(1), dense.shape(1)}));
}

mx::array attention_input(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const ForwardContext& context) {
  return before(spec.attention_norm, weights, x, context.dtype);
}

mx::array attention_mixed(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& input,
    const ForwardContext& context) {
  const AttentionSpec& attention = spec.attention;
  auto project = [&](const LinearSpec& linear,
                     const std::optional<NormSpec>& norm,
                     int heads) {
    auto out = weights.linears.at(linear.path)(input);
    const bool wide = is_wide(norm, attention);
    if (wide) {
      out = normed(*norm, weights, out, context.dtype);
    }
    out = split_heads(out, heads, attention.head_dim);
    return norm && !wide ? normed(*norm, weights, out, context.dtype) : out;
  };
  auto q = project(attention.q, attention.q_norm, attention.heads);
  auto k = project(attention.k, attention.k_norm, attention.kv_heads);
  auto v = project(attention.v, std::nullopt, attention.kv_heads);
  int offset = context.cache ? context.cache->length : 0;
  int length = input.shape(1);
  if (attention.rope.dims > 0) {
    auto table = make_rope_table(attention.rope, offset + length);
    q = ops::rope(q, table, offset);
    k = ops::rope(k, table, offset);
  }
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
  return before(spec.mlp_norm, weights, x, context.dtype);
}

mx::array mlp_wide(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& input) {
  auto gate = weights.linears.at(spec.mlp.gate.path)(input);
  auto up = weights.linears.at(spec.mlp.up.path)(input);
  return spec.mlp.activation == Activation::silu ? ops::swiglu(gate, up)
                                                 : ops::geglu(gate, up);
}

mx::array attention_output(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& residual,
    const mx::array& mixed) {
  return after(
      spec, spec.attention_post, spec.attention.o, weights, residual, mixed);
}

mx::array mlp_output(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& residual,
    const mx::array& wide) {
  return after(spec, spec.mlp_post, spec.mlp.down, weights, residual, wide);
}

mx::array run_attention(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const ForwardContext& context) {
  auto input = attention_input(spec, weights, x, context);
  auto mixed = attention_mixed(spec, weights, input, context);
  return attention_output(spec, weights, x, mixed);
}

mx::array run_mlp(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const ForwardContext& context) {
  auto input = mlp_input(spec, weights, x, context);
  auto wide = mlp_wide(spec, weights, input);
  return mlp_output(spec, weights, x, wide);
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
  auto weight = norm_weight(spec.final_norm, weights.final_norm);
  // The head is linear: scaling what it reads scales the logits.
  if (spec.logit_scale != 1) {
    weight = mx::multiply(
        mx::astype(weight, mx::float32), mx::array(spec.logit_scale));
  }
  return ops::rms_norm(x, weight, spec.final_norm.eps, dtype);
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
