#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/embedding_and_head.h"
#include "model/spec/decoder_spec.h"
#include "model/weights.h"
#include "ops/ops.h"

namespace pennyweight {

/// What one block keeps for generation: keys and values [batch, capacity,
/// heads, size], of which the first `length` positions are filled. Mixers other
/// than attention keep no state here: they keep their inputs instead, in
/// `inputs` [batch, capacity, 1, hidden].
struct BlockCache {
  std::optional<mx::array> keys, values;
  int length = 0;
  std::optional<mx::array> inputs;
  int inputs_length = 0;
};

/// A block's keys and values as its attention takes them, behind norms and
/// rotary embedding: [batch, length, kv_heads, head_dim].
struct KeysAndValues {
  mx::array keys, values;
};

/// What a forward pass needs beside weights and input. The residual stream is
/// float32; norms read it as such and give `dtype`, in which the matrices run.
struct ForwardContext {
  mx::Dtype dtype = mx::float32;
  /// Where set, the block's positions follow the cached ones.
  BlockCache* cache = nullptr;
};

/// Embeds tokens int32 [batch, length]: float32 [batch, length, hidden],
/// evaluated.
mx::array embed(const EmbeddingAndHead& weights, const mx::array& tokens);

/// Runs one block on x float32 [batch, length, columns]. The columns are the
/// hidden size, and what blocks share beside the residual stream
/// (model/stream/columns.h).
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
/// `shared` are the keys and values of another block, where the queries read
/// those (AttentionSpec::keys_of). `own`, unless it is null, gets this block's.
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

/// What the inner linears of latent attention read, made of attention_input:
/// the query latent (q_b), the value latent (kv_b), or head `part` of the
/// queries (the keys' stack).
mx::array latent_input(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& input,
    BlockInput which,
    int64_t part,
    const ForwardContext& context);

/// What experts and their router read of the residual stream x: mlp_input,
/// unless they have norms of their own.
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

/// The experts that each token chooses, and the weights of their results.
struct Routing {
  mx::array experts;  // uint32 [tokens, chosen]
  mx::array scores;   // float32 [tokens, chosen]
};
/// Routes router_input [tokens, hidden].
Routing
route(const MoeSpec& spec, const BlockWeights& weights, const mx::array& input);
/// What the experts read, made of experts_input [tokens, hidden]: the same, or
/// what MoeSpec::latent_in makes of it.
mx::array expert_source(
    const MoeSpec& spec,
    const BlockWeights& weights,
    const mx::array& input);
/// What MoeSpec::latent_out reads: the sum of the experts' results by their
/// scores, made of experts_input [tokens, hidden] and in its type.
mx::array expert_sum(
    const MoeSpec& spec,
    const BlockWeights& weights,
    const mx::array& input);
/// What an expert's down reads, made of rows [n, in] of expert_source.
mx::array expert_wide(
    const MoeSpec& spec,
    const BlockWeights& weights,
    int64_t expert,
    const mx::array& rows);

/// What SideScanSpec::out reads, made of attention_input: [batch, length, heads
/// * head_dim]. Absent where the block has no scan beside its attention.
std::optional<mx::array> side_scanned(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& input,
    const ForwardContext& context);

/// The residual stream, float32, behind the attention: o reads `mixed`, and
/// SideScanSpec::out reads `scanned`.
mx::array attention_output(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& residual,
    const mx::array& mixed,
    const std::optional<mx::array>& scanned = std::nullopt);
/// The residual stream, float32, behind MLP and experts: down reads `wide`,
/// which is absent where there is no MLP beside the experts.
mx::array mlp_output(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& residual,
    const std::optional<mx::array>& wide,
    const ForwardContext& context);
/// What TokenGateSpec::out reads, made of the residual stream behind the MLP
/// and the token's input.
mx::array token_wide(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& residual,
    const mx::array& input,
    const ForwardContext& context);
/// The residual stream that the block gives, made of the one behind its MLP.
/// `wide` is token_wide, for a block that has a token gate.
mx::array block_end(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& residual,
    const std::optional<mx::array>& wide);
/// attention_output and mlp_output in one, for a parallel block.
mx::array parallel_output(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& residual,
    const mx::array& mixed,
    const mx::array& wide);

/// What the head reads: x float32 [..., hidden] behind the final norm, times
/// DecoderSpec::logit_scale, in `dtype`.
mx::array final_norm(
    const DecoderSpec& spec,
    const EmbeddingAndHead& weights,
    const mx::array& x,
    mx::Dtype dtype);

/// Logits float32 [..., count] of the vocabulary entries first .. first +
/// count - 1, from final_norm()'s result x. Lazy for up to kTableRows entries,
/// evaluated for more.
mx::array head_tile(
    const EmbeddingAndHead& weights,
    const mx::array& x,
    int first,
    int count);

}  // namespace pennyweight
