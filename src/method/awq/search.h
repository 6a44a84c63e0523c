#pragma once

#include <optional>
#include <vector>

#include "method/awq/awq.h"
#include "method/block_method.h"
#include "model/scale_groups.h"

namespace pennyweight {

using Scales = std::vector<float>;

/// A group of linears with what is known of their inputs.
struct AwqInputs {
  LinearGroup group;
  int64_t tokens = 0;
  std::vector<float> gram;   // [in, in]
  std::vector<float> means;  // of |x| [in]
};

/// Inputs that one previous op feeds, and so share their scales.
struct AwqScaling {
  ScaleGroup group;
  std::vector<size_t> members;  // of AwqBlock::inputs
  Scales scales{};              // chosen; empty: none
};

struct AwqBlock {
  std::vector<AwqInputs> inputs;
  std::vector<AwqScaling> scalings;
  /// Ops that could take scales of linears one of which is published packed, by
  /// path: they get none.
  std::vector<std::string> unfoldable;

  /// Scales of the inputs' channels, and of the rows of a linear that is a
  /// previous op; empty: ones.
  Scales columns(size_t input) const;
  Scales rows(const std::string& path) const;
};

/// Asks the task for all groups' statistics.
AwqBlock take_inputs(BlockTask& task);

/// The linear rounded in its scaled form, see AwqInput; empty scales: ones.
GptqResult round_module(
    const BlockTask& task,
    const ModuleSpec& module,
    const AwqInputs& inputs,
    const Scales& columns,
    const Scales& rows,
    const AwqOptions& options);

/// What a weight that was rounded so stands for before scaling.
mx::array unscaled(
    const BlockTask& task,
    const ops::QuantizedWeight& packed,
    const Scales& columns,
    const Scales& rows);

/// Chooses scaling.scales from the ratio grid, by the Gram matrices and then by
/// the block's output; empty where none is better than ones. Gives the ratio
/// and the share of the loss that is left.
Json search_scales(
    BlockTask& task,
    const AwqOptions& options,
    const AwqBlock& block,
    AwqScaling& scaling);

}  // namespace pennyweight
