#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/decoder_spec.h"
#include "model/weights.h"
#include "ops/ops.h"

namespace pennyweight {

/// Keys and values of one block for generation, [batch, capacity, kv_heads,
/// head_dim], the first `length` positions filled.
struct BlockCache {
  std::optional<mx::array> keys, values;
  int length = 0;
};

/// Everything in a forward pass but the weights. The residual stream is
/// float32; norms read it so and give `dtype`, in which the matrices run.
struct ForwardContext {
  mx::Dtype dtype = mx::float32;
  /// Where set, the block's positions follow the cached ones.
  BlockCache* cache = nullptr;
};

/// tokens int32 [batch, length] to float32 [batch, length, hidden].
mx::array embed(const OuterWeights& weights, const mx::array& tokens);

/// x float32 [batch, length, hidden] through one block, in the same shape.
mx::array run_block(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const ForwardContext& context);

/// The steps of a block, each up to what the next linears read: q, k and v
/// read attention_input [batch, length, hidden], o reads attention_mixed of it
/// [batch, length, heads * head_dim]; gate and up read mlp_input, down reads
/// mlp_wide of it. All in context.dtype.
mx::array attention_input(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const ForwardContext& context);
mx::array attention_mixed(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& input,
    const ForwardContext& context);
mx::array mlp_input(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const ForwardContext& context);
mx::array mlp_wide(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& input);

/// And what becomes of the residual stream, float32, when o has read `mixed`
/// and down has read `wide`.
mx::array attention_output(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& residual,
    const mx::array& mixed);
mx::array mlp_output(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& residual,
    const mx::array& wide);

/// The two halves of run_block: x plus what attention and MLP add to it.
mx::array run_attention(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const ForwardContext& context);
mx::array run_mlp(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const ForwardContext& context);

/// The final norm: x float32 [..., hidden] to `dtype`.
mx::array final_norm(
    const DecoderSpec& spec,
    const OuterWeights& weights,
    const mx::array& x,
    mx::Dtype dtype);

/// Logits float32 [..., count] of the vocabulary entries first .. first +
/// count - 1, from a final norm's result.
mx::array head_tile(
    const OuterWeights& weights,
    const mx::array& x,
    int first,
    int count);

/// Logits float32 [batch, length, vocab] of tokens [batch, length] through
/// the whole model, all at once: for tests and tiny models.
mx::array logits(const Model& model, const mx::array& tokens, mx::Dtype dtype);

}  // namespace pennyweight
