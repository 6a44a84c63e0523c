#include "model/decoder.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "core/error.h"
#include "model/blocks/block_parts.h"
#include "model/stream/columns.h"
#include "model/stream/token_inputs.h"
#include "ops/evaluated.h"

namespace pennyweight {

mx::array embed(const EmbeddingAndHead& weights, const mx::array& tokens) {
  auto x = weights.embedding.take(tokens, weights.rounded);
  if (weights.embedding_eps) {
    x = ops::rms_norm(
        x, mx::ones({x.shape(-1)}, mx::float32), *weights.embedding_eps);
    mx::eval(x);
  }
  return weights.embedding_scale == 1
      ? x
      : mx::multiply(x, mx::array(weights.embedding_scale));
}

namespace {

// Takes the residual stream through the block's attention and MLP.
mx::array run_parts(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& residual,
    const ForwardContext& context,
    const std::optional<KeysAndValues>& shared,
    std::optional<KeysAndValues>* own) {
  auto h = residual;
  if (spec.attends) {
    auto input = attention_input(spec, weights, residual, context);
    auto mixed = attention_mixed(spec, weights, input, context, shared, own);
    if (spec.parallel) {
      auto wide = mlp_wide(
          *spec.mlp,
          weights,
          spec.mlp_norm ? mlp_input(spec, weights, residual, context) : input);
      return parallel_output(spec, weights, residual, mixed, wide);
    }
    auto scanned = side_scanned(spec, weights, input, context);
    h = attention_output(spec, weights, residual, mixed, scanned);
  }
  if (!spec.has_mlp()) {
    return h;
  }
  std::optional<mx::array> wide;
  if (spec.mlp) {
    wide = mlp_wide(*spec.mlp, weights, mlp_input(spec, weights, h, context));
  }
  return mlp_output(spec, weights, h, wide, context);
}

}  // namespace

mx::array run_block(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const ForwardContext& context) {
  std::optional<KeysAndValues> own;
  auto y = run_parts(
      spec,
      weights,
      residual_of(spec, x),
      context,
      shared_keys(spec, x, context.dtype),
      shares_keys(spec) ? &own : nullptr);
  std::optional<mx::array> wide;
  if (spec.token_gate) {
    wide = token_wide(spec, weights, y, token_input_of(spec, x), context);
  }
  return with_given(spec, block_end(spec, weights, y, wide), x, own);
}

mx::array final_norm(
    const DecoderSpec& spec,
    const EmbeddingAndHead& weights,
    const mx::array& x,
    mx::Dtype dtype) {
  auto scaled = spec.final_norm;
  auto weight = norm_weight(scaled, weights.final_norm);
  scaled.offset = 0;
  // The head is linear: scaling what it reads scales the logits.
  auto bias = weights.final_norm_bias;
  if (spec.logit_scale != 1) {
    const auto times = [&](const mx::array& value) {
      return mx::multiply(
          mx::astype(value, mx::float32), mx::array(spec.logit_scale));
    };
    weight = times(weight);
    bias = bias ? std::optional(times(*bias)) : bias;
  }
  return normed(scaled, weight, bias, x, dtype);
}

mx::array head_tile(
    const EmbeddingAndHead& weights,
    const mx::array& x,
    int first,
    int count) {
  const auto some = [&](int begin, int rows) {
    return ops::cap_logits(
        weights.head.rows(begin, rows)(x, mx::float32), weights.logit_cap);
  };
  if (count <= kTableRows) {
    return some(first, count);
  }
  std::vector<mx::array> parts;
  each_rows(count, [&](int begin, int rows) {
    parts.push_back(some(first + begin, rows));
    mx::eval(parts.back());
  });
  return evaluated(mx::concatenate(std::move(parts), -1));
}

}  // namespace pennyweight
