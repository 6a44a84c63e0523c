#pragma once

#include "model/config/class_config.h"

namespace pennyweight {

/// Puts what rope_parameters hold under the keys that the class reads:
/// rope_theta, rope_scaling, partial_rotary_factor, rope_local_base_freq,
/// original_max_position_embeddings; and the other way round for a class that
/// reads rope_parameters alone. transformers 5 writes rope_parameters, flat or
/// by layer type ({"full_attention": {...}, "sliding_attention": {...}}), in
/// place of those keys; a key that is there at the top is what the class
/// reads, and wins.
void read_rope_parameters(const ModelClass& type, ClassConfig& config);

}  // namespace pennyweight
