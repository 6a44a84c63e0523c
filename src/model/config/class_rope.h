#pragma once

#include "model/config/class_config.h"

namespace pennyweight {

/// Puts the values in rope_parameters under the keys that the class reads:
/// rope_theta, rope_scaling, partial_rotary_factor, rope_local_base_freq,
/// original_max_position_embeddings; and the other way round for a class that
/// reads rope_parameters alone. transformers 5 writes rope_parameters, flat or
/// by layer type ({"full_attention": {...}, "sliding_attention": {...}}), in
/// place of those keys. Where such a key stands at the top of the config, too,
/// that one is taken, since the class reads it.
void read_rope_parameters(const ModelClass& type, ClassConfig& config);

}  // namespace pennyweight
