#pragma once

#include <map>
#include <string>

#include "format/quant_plan.h"
#include "method/stage.h"
#include "model/weights.h"

namespace pennyweight {

/// A block that a walk is done with.
struct FinishedBlock {
  PackedBlock packed;
  /// Tensors in floats that are not as in the checkpoint, by name: norms,
  /// biases and linears that scales were folded into.
  std::map<std::string, mx::array> floats;
};

/// A linear's dense weight, evaluated and row-contiguous; a numeric Error that
/// names it where it is not finite.
mx::array finite_dense(const LinearWeights& linear, const std::string& path);

/// numeric Error that names the first of the block's dense weights with NaN or
/// infinities.
void require_finite(const BlockWeights& weights);

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
