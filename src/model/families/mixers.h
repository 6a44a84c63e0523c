#pragma once

#include <string>
#include <vector>

#include "model/families/standard.h"

/// What families share whose blocks mix tokens by more than attention.
namespace pennyweight {

/// The names by layer under `key`; empty where it is absent. A corrupt Error
/// where they are not `layers` strings.
std::vector<std::string>
read_layer_names(const JsonView& config, const char* key, int layers);

/// The hub has convolutions [channels, 1, width]; mlx-lm turns them to
/// [channels, width, 1], which is what `name` is, unless it stands so already.
void add_convolution_source(
    const FamilyInput& input,
    const std::string& name,
    DecoderSpec& spec);

/// rope_theta, for which a class takes that of rope_parameters where there is
/// one, and makes nothing of the rest; a scaling is noted. Where both are there
/// they must agree (corrupt Error).
void read_hybrid_rope(
    const JsonView& config,
    RopeSpec& rope,
    DecoderSpec& spec);

}  // namespace pennyweight
