#include <mlx/ops.h>

#include "model/blocks/attention_parts.h"

namespace pennyweight {

namespace {

// Whether a norm is over all heads together, and not over each.
bool is_wide(const std::optional<NormSpec>& norm, const AttentionSpec& spec) {
  return norm && norm->size != spec.head_dim;
}

// Splits a projection `all` that holds, for each key head in turn, its queries,
// its key and its value.
Heads split_groups(const AttentionSpec& attention, const mx::array& all) {
  const int queries = attention.heads / attention.kv_heads;
  const auto grouped = mx::reshape(
      all,
      {all.shape(0),
       all.shape(1),
       attention.kv_heads,
       queries + 2,
       attention.head_dim});
  const auto part = [&](int first, int end) {
    auto start = mx::Shape(5, 0);
    auto stop = grouped.shape();
    start[3] = first;
    stop[3] = end;
    return mx::reshape(
        mx::slice(grouped, start, stop),
        {all.shape(0), all.shape(1), -1, attention.head_dim});
  };
  return {
      part(0, queries),
      part(queries, queries + 1),
      part(queries + 1, queries + 2)};
}

// What the heads' results are multiplied by (AttentionSpec::gate): [batch,
// length, heads, head_dim], or of size 1 a head.
mx::array head_gate(
    const AttentionSpec& attention,
    const BlockWeights& weights,
    const mx::array& input) {
  auto gate = split_heads(
      weights.linears.at(attention.gate->path)(input),
      attention.heads,
      static_cast<int>(attention.gate->out) / attention.heads);
  if (!attention.softplus_gate) {
    return mx::sigmoid(gate);
  }
  const auto wide = mx::astype(gate, mx::float32);
  return mx::astype(mx::logaddexp(wide, mx::array(0.0f)), gate.dtype());
}

// Queries, keys and values before norms and rotary embedding. With
// keys_as_values v is the output of k; `shared` keys and values are final.
Heads split_projections(
    const AttentionSpec& attention,
    const BlockWeights& weights,
    const mx::array& input,
    const std::optional<KeysAndValues>& shared) {
  const auto heads = [&](const mx::array& x, int count) {
    return split_heads(x, count, attention.head_dim);
  };
  if (!attention.qkv) {
    const auto project = [&](const LinearSpec& linear, int count) {
      return heads(weights.linears.at(linear.path)(input), count);
    };
    const auto q = attention.gated
        ? split_heads(
              weights.linears.at(attention.q.path)(input),
              attention.heads,
              2 * attention.head_dim)
        : project(attention.q, attention.heads);
    if (shared) {
      return {q, shared->keys, shared->values};
    }
    const auto k = project(attention.k, attention.kv_heads);
    Heads split{
        q,
        k,
        attention.keys_as_values ? k
                                 : project(attention.v, attention.kv_heads)};
    if (attention.gated) {
      const int size = attention.head_dim;
      split.gate = last_axis(split.q, size, 2 * size);
      split.q = last_axis(split.q, 0, size);
      weights.see("the output of " + attention.q.path, split.q);
    }
    return split;
  }
  const auto all = weights.linears.at(attention.qkv->path)(input);
  if (attention.by_group) {
    return split_groups(attention, all);
  }
  const int q_end = attention.heads * attention.head_dim;
  const int k_end = q_end + attention.kv_heads * attention.head_dim;
  return {
      heads(last_axis(all, 0, q_end), attention.heads),
      heads(last_axis(all, q_end, k_end), attention.kv_heads),
      heads(last_axis(all, k_end, all.shape(-1)), attention.kv_heads)};
}

mx::array norm_heads(
    const AttentionSpec& attention,
    const std::optional<NormSpec>& norm,
    const BlockWeights& weights,
    const mx::array& x,
    mx::Dtype dtype) {
  if (!norm) {
    return x;
  }
  if (!is_wide(norm, attention)) {
    return normed(*norm, weights, x, dtype);
  }
  return mx::reshape(
      normed(*norm, weights, mx::flatten(x, 2, 3), dtype), x.shape());
}

// Normed by no weight.
mx::array norm_values(
    const AttentionSpec& attention,
    const BlockWeights& weights,
    const mx::array& x,
    mx::Dtype dtype) {
  if (!attention.value_eps) {
    return x;
  }
  const auto ones = mx::ones({attention.head_dim}, dtype);
  auto y = ops::rms_norm(x, ones, *attention.value_eps, dtype);
  weights.see("the values before " + attention.o.path, y);
  return y;
}

// Queries, keys and values as the attention takes them, normed and rotated.
Heads plain_heads(
    const AttentionSpec& attention,
    const BlockWeights& weights,
    const mx::array& input,
    int offset,
    mx::Dtype dtype,
    const std::optional<KeysAndValues>& shared) {
  auto heads = split_projections(attention, weights, input, shared);
  const auto norm = [&](const auto& own, const mx::array& x) {
    return norm_heads(attention, own, weights, x, dtype);
  };
  if (attention.norms_behind_rope) {
    heads.q = norm(attention.q_norm, rotated(attention, heads.q, offset));
    heads.k = norm(attention.k_norm, rotated(attention, heads.k, offset));
    return heads;
  }
  heads.q = rotated(attention, norm(attention.q_norm, heads.q), offset);
  if (!shared) {
    heads.k = rotated(attention, norm(attention.k_norm, heads.k), offset);
    heads.v = norm_values(attention, weights, heads.v, dtype);
  }
  return heads;
}

// 1 + beta log(1 + floor(position / positions)), float32 [1, length, 1, 1].
mx::array growth(const AttentionSpec& attention, int offset, int length) {
  auto at = mx::astype(mx::arange(offset, offset + length), mx::float32);
  auto steps =
      mx::floor(mx::divide(at, mx::array(float(attention.growth_positions))));
  auto factor = mx::add(
      mx::array(1.0f),
      mx::multiply(mx::array(attention.growth_beta), mx::log1p(steps)));
  return mx::reshape(factor, {1, length, 1, 1});
}

}  // namespace

mx::array
rotated(const AttentionSpec& attention, const mx::array& x, int offset) {
  if (attention.rope.dims == 0) {
    return x;
  }
  auto table = make_rope_table(attention.rope, offset + x.shape(1));
  return ops::rope(x, table, offset);
}

mx::array attention_input(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const ForwardContext& context) {
  return before(spec.attention_norm, weights, x, context.dtype);
}

KeysAndValues own_keys(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& input,
    const ForwardContext& context) {
  const auto heads = plain_heads(
      spec.attention, weights, input, 0, context.dtype, std::nullopt);
  return {heads.k, heads.v};
}

mx::array attention_mixed(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& input,
    const ForwardContext& context,
    const std::optional<KeysAndValues>& shared,
    std::optional<KeysAndValues>* own) {
  const AttentionSpec& attention = spec.attention;
  if (attention.delta) {
    return delta_mixed(*attention.delta, weights, input, context);
  }
  if (attention.short_conv) {
    return short_conv_mixed(*attention.short_conv, weights, input, context);
  }
  if (attention.scan) {
    return scan_mixed(*attention.scan, weights, input, context);
  }
  const int offset = context.cache ? context.cache->length : 0;
  const int length = input.shape(1);
  auto heads = attention.latent
      ? latent_heads(attention, weights, input, offset, context.dtype)
      : plain_heads(attention, weights, input, offset, context.dtype, shared);
  if (own) {
    *own = KeysAndValues{heads.k, heads.v};
  }
  if (attention.growth_beta != 0) {
    heads.q = mx::astype(
        mx::multiply(heads.q, growth(attention, offset, length)),
        context.dtype);
  }
  if (context.cache) {
    heads.k = append(context.cache->keys, heads.k, offset);
    heads.v = append(context.cache->values, heads.v, offset);
    context.cache->length = offset + length;
  }
  // A score that is capped may be infinite: its tanh is 1.
  if (weights.range && attention.cap == 0 && !attention.wide_scores) {
    see_scores(attention, weights, heads.q, heads.k);
  }
  ops::AttentionOptions options{
      .scale = attention.scale,
      .window = attention.window,
      .cap = attention.cap};
  if (attention.sinks) {
    options.sinks = weights.parameters.at(attention.sinks->name);
  }
  auto mixed = ops::attention(heads.q, heads.k, heads.v, options);
  if (attention.latent) {
    mixed = last_axis(mixed, 0, attention.latent->value_dim);
  }
  if (heads.gate) {
    mixed = mx::multiply(mixed, mx::sigmoid(*heads.gate));
  }
  if (attention.gate) {
    mixed = mx::multiply(mixed, head_gate(attention, weights, input));
  }
  return mx::flatten(mixed, 2, 3);
}

mx::array attention_output(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& residual,
    const mx::array& mixed,
    const std::optional<mx::array>& scanned) {
  const auto& o = weights.linears.at(spec.attention.o.path);
  const auto x = !spec.attention_post && spec.residual_scale == 1
      ? o.add_to(residual, mixed)
      : add_part(
            spec,
            spec.attention_post,
            weights,
            residual,
            o(mixed, mx::float32));
  const auto held = held_residual(spec, weights, spec.attention.o.path, x);
  if (!scanned) {
    return held;
  }
  const auto& out = weights.linears.at(spec.side_scan->out.path);
  return held_residual(
      spec, weights, spec.side_scan->out.path, out.add_to(held, *scanned));
}

}  // namespace pennyweight
