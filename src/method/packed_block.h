#pragma once

#include <map>
#include <string>
#include <vector>

#include "format/quant_plan.h"
#include "method/block_method.h"
#include "model/finite.h"
#include "model/weights.h"

namespace pennyweight {

/// The linears of `block` that `plan` quantizes, by what they read.
std::vector<LinearGroup> list_groups(
    const BlockSpec& block,
    const QuantPlan& plan);

/// A block that a walk is done with.
struct FinishedBlock {
  PackedBlock packed;
  /// Tensors in floats that are not as in the checkpoint, by name: norms,
  /// biases and linears that scales were folded into.
  std::map<std::string, mx::array> floats;
};

/// Packed weights as the output names their tensors.
std::map<std::string, mx::array> block_tensors(const PackedBlock& block);

/// Back from a block's tensors: corrupt Error for one of the plan's that is
/// missing.
FinishedBlock finished_block(
    const std::map<std::string, mx::array>& tensors,
    const BlockSpec& spec,
    const QuantPlan& plan);

/// Replaces the block's full-precision weights by the finished ones, packed
/// weights expanded to `dtype`.
void put_in_place(
    const FinishedBlock& block,
    mx::Dtype dtype,
    BlockWeights& weights);

}  // namespace pennyweight
