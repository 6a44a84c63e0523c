#pragma once

#include "model/families/moe.h"

namespace pennyweight {

/// Replaces the attention of every layer but each full_attention_interval-th
/// by the gated delta rule, and gates the attention that stays. With `fused` q,
/// k, v, z share one matrix and b, a another. corrupt Error for sizes out of
/// range.
void fill_delta_layers(const JsonView& config, bool fused, DecoderSpec& spec);

/// Adds experts and a gated shared one, where the config has any: to all layers
/// (`everywhere`), or to those that decoder_sparse_step and mlp_only_layers do
/// not exclude.
void fill_delta_experts(
    const JsonView& config,
    bool everywhere,
    DecoderSpec& spec);

/// Adds the sources of tensors that mlx-lm changes: the hub's norms lack the 1
/// that mlx-lm adds to their weights, and its convolutions have their width
/// last. `from` gives a tensor's name on the hub.
void add_delta_sources(
    const std::function<std::string(const std::string&)>& from,
    DecoderSpec& spec);

}  // namespace pennyweight
