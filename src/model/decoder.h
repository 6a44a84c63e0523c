#pragma once

#include <functional>
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

/// Called with the input of linears as they are about to run: the input_id
/// of ModuleSpec and x [batch, length, in].
using CaptureFn =
    std::function<void(const std::string& input_id, const mx::array& x)>;

/// Everything in a forward pass but the weights. The residual stream is
/// float32; norms read it so and give `dtype`, in which the matrices run.
struct ForwardContext {
  mx::Dtype dtype = mx::float32;
  /// Where set, the block's positions follow the cached ones.
  BlockCache* cache = nullptr;
  CaptureFn capture{};
};

/// tokens int32 [batch, length] to float32 [batch, length, hidden].
mx::array embed(const OuterWeights& weights, const mx::array& tokens);

/// x float32 [batch, length, hidden] through one block, in the same shape.
mx::array run_block(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const ForwardContext& context);

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
