#pragma once

#include <optional>

#include "model/families/family.h"

namespace pennyweight {

/// The eps of the latents' norms in mlx-lm's deepseek classes, whatever the
/// config says.
inline constexpr float kLatentEps = 1e-6f;

/// Widths of latent attention, by the keys that DeepSeek gave them.
struct LatentShape {
  int64_t q_rank = 0;  // 0: none
  int rank = 0;
  int nope = 0;
  int rope = 0;
  int value = 0;
};

/// Reads the widths. corrupt Error for one out of range, not_supported for
/// heads that the decoder can't run.
LatentShape read_latent_shape(const JsonView& config);

/// Gives a block latent attention. Keys and values come from one matrix (kv_b);
/// scores are scaled by 1 / sqrt(nope + rope). `eps` is that of the latents'
/// norms.
void fill_latent(
    const LatentShape& shape,
    int64_t hidden,
    bool bias,
    BlockSpec& block,
    float eps = kLatentEps);

/// Replaces kv_b by two stacks over the heads, as mlx-lm has them: embed_q for
/// the keys, transposed, and unembed_out for the values; and adds their
/// sources.
void split_by_heads(BlockSpec& block, DecoderSpec& spec);

/// The spec that DeepSeek's second and third generation share. The router's
/// scores are left to the caller. `eps` is that of the latents' norms, where it
/// is not kLatentEps.
DecoderSpec read_latent_deepseek(
    const FamilyInput& input,
    std::optional<float> eps = std::nullopt);

}  // namespace pennyweight
