#pragma once

#include <optional>

#include "model/families/family.h"

namespace pennyweight {

/// mlx-lm's deepseek classes give the latents' norms this, whatever the config
/// says.
inline constexpr float kLatentEps = 1e-6f;

/// Widths of latent attention, by the keys that DeepSeek gave them.
struct LatentShape {
  int64_t q_rank = 0;  // 0: none
  int rank = 0;
  int nope = 0;
  int rope = 0;
  int value = 0;
};

/// corrupt Error for a width out of range, not_supported for heads that the
/// decoder can't run.
LatentShape read_latent_shape(const JsonView& config);

/// Queries and keys by way of latents, with the keys' and values' matrix whole,
/// and scores scaled by the heads' width.
void fill_latent(
    const LatentShape& shape,
    int64_t hidden,
    bool bias,
    BlockSpec& block,
    float eps = kLatentEps);

/// The keys' and values' matrix becomes two stacks over the heads: embed_q for
/// the keys, turned round, and unembed_out for the values.
void split_by_heads(BlockSpec& block, DecoderSpec& spec);

/// What DeepSeek's second and third generation share; the router's scores are
/// left to them. `eps` is that of the latents' norms, where it is not
/// kLatentEps.
DecoderSpec read_latent_deepseek(
    const FamilyInput& input,
    std::optional<float> eps = std::nullopt);

}  // namespace pennyweight
