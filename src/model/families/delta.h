#pragma once

#include "model/families/moe.h"

namespace pennyweight {

/// Replaces the attention of every layer but each full_attention_interval-th
/// by the gated delta rule (corrupt Error for sizes out of range). `fused`:
/// q, k, v, z and b, a stand in one matrix each. Full attention is gated.
void fill_delta_layers(
    const JsonView& config,
    const StandardShape& shape,
    bool fused,
    DecoderSpec& spec);

/// Experts and a gated shared one, where the config has any: in all layers
/// (`everywhere`), or in those that decoder_sparse_step and mlp_only_layers
/// leave.
void fill_delta_experts(
    const JsonView& config,
    int64_t hidden,
    bool everywhere,
    DecoderSpec& spec);

/// The hub's norms lack the 1 that mlx-lm's weights hold, and its convolutions
/// have their width last; `from` gives a tensor's name there.
void add_delta_sources(
    const std::function<std::string(const std::string&)>& from,
    DecoderSpec& spec);

}  // namespace pennyweight
