#pragma once

#include "model/blocks/block_parts.h"

/// What the kinds of attention share.
namespace pennyweight {

/// Queries, keys and values as the attention takes them, normed and rotated.
struct Heads {
  mx::array q, k, v;                // [batch, length, heads or kv_heads, size]
  std::optional<mx::array> gate{};  // of the shape of q
};

/// x [batch, length, heads, size], whose positions begin at `offset`, under the
/// rotary embedding.
mx::array
rotated(const AttentionSpec& attention, const mx::array& x, int offset);

/// The heads of latent attention, whose values are padded to the keys' size.
/// not_supported Error for a text so long that an indexer would choose keys.
Heads latent_heads(
    const AttentionSpec& attention,
    const BlockWeights& weights,
    const mx::array& input,
    int offset,
    mx::Dtype dtype);

}  // namespace pennyweight
