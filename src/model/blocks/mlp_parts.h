#pragma once

#include "model/blocks/block_parts.h"

/// What an MLP and experts share.
namespace pennyweight {

/// The product that the linear behind a gated MLP reads.
mx::array
activated(Activation activation, const mx::array& gate, const mx::array& up);

/// The experts' results by their scores, float32 [tokens, their width], of
/// experts_input [tokens, hidden].
mx::array mix_experts(
    const MoeSpec& spec,
    const BlockWeights& weights,
    const mx::array& input,
    const Routing& routing);

}  // namespace pennyweight
