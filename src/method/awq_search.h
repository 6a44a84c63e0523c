#pragma once

#include <optional>
#include <vector>

#include "method/awq.h"
#include "method/stage.h"

namespace pennyweight {

using Scales = std::vector<float>;

/// A group of linears with what is known of their inputs.
struct AwqInputs {
  LinearGroup group;
  std::vector<float> gram;   // [in, in]
  std::vector<float> means;  // of |x| [in]
  std::optional<ScaleGroup> scaling;
  Scales scales{};  // chosen; empty: none
};

/// Asks the task for the group's statistics.
AwqInputs take_inputs(BlockTask& task, const LinearGroup& group);

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

/// Chooses inputs.scales from the ratio grid, by the Gram matrix and then by
/// the block's output; empty where none is better than ones. Gives the ratio
/// and the share of the loss that is left.
Json search_scales(
    BlockTask& task,
    const AwqOptions& options,
    AwqInputs& inputs);

}  // namespace pennyweight
