#pragma once

#include "model/families/family.h"

namespace pennyweight {

/// Changes the sources of the experts' stacks where the checkpoint holds
/// experts in another form than the family's own: one by one
/// (experts.N.gate_proj.weight), as tools write them that quantize linears, or
/// gate above up in a stack of all (experts.gate_up_proj [experts, 2 * wide,
/// hidden], experts.down_proj), as transformers 5 does. mlx-lm loads neither
/// form, and an output has the family's stacks; a note says so.
void take_other_expert_layouts(const FamilyInput& input, DecoderSpec& spec);

}  // namespace pennyweight
