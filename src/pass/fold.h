#pragma once

#include <string>
#include <vector>

#include "model/scale_groups.h"
#include "model/spec/decoder_spec.h"
#include "model/weights.h"

namespace pennyweight {

/// The scales that come out when `scales` [channels] are folded into the
/// group's previous op: a norm's weights are rounded to their type, and the
/// linears make up for that; a linear's weights are not rounded here. numeric
/// Error for a scale that is not finite or not positive.
std::vector<float> foldable_scales(
    const ScaleGroup& group,
    const std::vector<float>& scales,
    const BlockWeights& weights);

/// Divides the previous op by `scales`, which foldable_scales gave, and
/// multiplies the linears' columns. Linears become float32; norms and biases
/// keep their types. Returns the names of tensors that changed.
std::vector<std::string> fold_scales(
    const ScaleGroup& group,
    const std::vector<float>& scales,
    BlockWeights& weights);

/// Scales of a linear's output channels that `scales` of the group's input
/// channels mean, see ScaleGroup::from and power; ones where none is fed.
std::vector<float> previous_scales(
    const ScaleGroup& group,
    const std::vector<float>& scales);

}  // namespace pennyweight
