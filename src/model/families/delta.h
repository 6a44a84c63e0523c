#pragma once

#include "model/families/moe.h"

namespace pennyweight {

/// Keys of the gated delta rule's layers, and of full attention beside them.
std::vector<const char*> with_delta_keys(std::vector<const char*> more);

/// Replaces the attention of every layer but each full_attention_interval-th
/// by the gated delta rule (corrupt Error for sizes out of range). `fused`:
/// q, k, v, z and b, a stand in one matrix each. Full attention is gated.
void fill_delta_layers(
    const JsonView& config,
    const StandardShape& shape,
    bool fused,
    DecoderSpec& spec);

/// Experts and a gated shared one in all layers that the config gives them.
void fill_delta_experts(
    const JsonView& config,
    int64_t hidden,
    bool normalize,
    DecoderSpec& spec);

/// The hub's norms lack the 1 that mlx-lm's weights hold, and its convolutions
/// have their width last; `from` gives a tensor's name there.
void add_delta_sources(
    const std::function<std::string(const std::string&)>& from,
    DecoderSpec& spec);

}  // namespace pennyweight
