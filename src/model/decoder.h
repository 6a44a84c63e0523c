#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/embedding_and_head.h"
#include "model/spec/decoder_spec.h"
#include "model/weights.h"
#include "ops/ops.h"

namespace pennyweight {

/// Keys and values of one block for generation, [batch, capacity, heads,
/// size], the first `length` positions filled. Mixers that keep no state have
/// what they read in `inputs` [batch, capacity, 1, hidden] instead.
struct BlockCache {
  std::optional<mx::array> keys, values;
  int length = 0;
  std::optional<mx::array> inputs;
  int inputs_length = 0;
};

/// Of one block, ready for the queries: [batch, length, kv_heads, head_dim].
struct KeysAndValues {
  mx::array keys, values;
};

/// Everything in a forward pass but the weights. The residual stream is
/// float32; norms read it so and give `dtype`, in which the matrices run.
struct ForwardContext {
  mx::Dtype dtype = mx::float32;
  /// Where set, the block's positions follow the cached ones.
  BlockCache* cache = nullptr;
};

/// tokens int32 [batch, length] to float32 [batch, length, hidden], evaluated.
mx::array embed(const EmbeddingAndHead& weights, const mx::array& tokens);

/// x float32 [batch, length, columns], which is hidden but for what stands
/// beside the residual stream (model/stream/columns.h), through one block.
mx::array run_block(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const ForwardContext& context);

/// The parts of a block, each up to what the next linears read: q, k and v
/// read attention_input [batch, length, hidden], o reads attention_mixed of it
/// [batch, length, heads * value size]; gate and up read mlp_input, down reads
/// mlp_wide of it. All in context.dtype. In a parallel block the MLP reads
/// attention_input. x and residual are the residual stream alone.
mx::array attention_input(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const ForwardContext& context);
/// `shared`: of another block, where the queries read those (keys_of).
/// `own`: gets the block's, unless it is null.
mx::array attention_mixed(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& input,
    const ForwardContext& context,
    const std::optional<KeysAndValues>& shared = std::nullopt,
    std::optional<KeysAndValues>* own = nullptr);
/// The keys and values that attention_mixed makes of its input.
KeysAndValues own_keys(
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
    const MlpSpec& spec,
    const BlockWeights& weights,
    const mx::array& input);

/// What the linears between attention_input and attention_mixed read of it, in
/// latent attention: q_b, kv_b, or a head's part of the keys' stack.
mx::array latent_input(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& input,
    BlockInput which,
    int64_t part,
    const ForwardContext& context);

/// What experts and their router read, of the residual stream x:
/// mlp_input, unless they have norms of their own.
mx::array experts_input(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const ForwardContext& context);
mx::array router_input(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const ForwardContext& context);

/// Which experts take which tokens of router_input [tokens, hidden].
struct Routing {
  mx::array experts;  // uint32 [tokens, chosen]
  mx::array scores;   // float32 [tokens, chosen]
};
Routing
route(const MoeSpec& spec, const BlockWeights& weights, const mx::array& input);
/// What the experts read of experts_input [tokens, hidden]: itself, or what
/// MoeSpec::latent_in makes of it.
mx::array expert_source(
    const MoeSpec& spec,
    const BlockWeights& weights,
    const mx::array& input);
/// The sum over the experts by their scores that MoeSpec::latent_out reads, of
/// experts_input [tokens, hidden], in its type.
mx::array expert_sum(
    const MoeSpec& spec,
    const BlockWeights& weights,
    const mx::array& input);
/// What an expert's down reads of rows [n, in] of expert_source.
mx::array expert_wide(
    const MoeSpec& spec,
    const BlockWeights& weights,
    int64_t expert,
    const mx::array& rows);

/// What the linear behind a scan beside the attention reads of attention_input,
/// [batch, length, heads * head_dim]; nothing where there is no such scan.
std::optional<mx::array> side_scanned(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& input,
    const ForwardContext& context);

/// And what becomes of the residual stream, float32, when o has read `mixed`
/// and down has read `wide` (absent: there is no MLP beside the experts).
mx::array attention_output(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& residual,
    const mx::array& mixed,
    const std::optional<mx::array>& scanned = std::nullopt);
mx::array mlp_output(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& residual,
    const std::optional<mx::array>& wide,
    const ForwardContext& context);
/// What the token gate's `out` reads, of the residual stream behind the MLP and
/// the token's input.
mx::array token_wide(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& residual,
    const mx::array& input,
    const ForwardContext& context);
/// What the block gives of the residual stream behind the MLP; `wide` where it
/// has a token gate.
mx::array block_end(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& residual,
    const std::optional<mx::array>& wide);
/// Both at once, of a parallel block.
mx::array parallel_output(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& residual,
    const mx::array& mixed,
    const mx::array& wide);

/// The final norm: x float32 [..., hidden] to `dtype`.
mx::array final_norm(
    const DecoderSpec& spec,
    const EmbeddingAndHead& weights,
    const mx::array& x,
    mx::Dtype dtype);

/// Logits float32 [..., count] of the vocabulary entries first .. first +
/// count - 1, from a final norm's result; of many entries evaluated.
mx::array head_tile(
    const EmbeddingAndHead& weights,
    const mx::array& x,
    int first,
    int count);

/// Logits float32 [batch, length, vocab] of tokens [batch, length] through
/// the whole model, all at once: for tests and tiny models.
mx::array logits(const Model& model, const mx::array& tokens, mx::Dtype dtype);

}  // namespace pennyweight
