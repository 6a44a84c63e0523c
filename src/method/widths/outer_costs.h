#pragma once

#include <vector>

#include "method/widths/rounding_costs.h"
#include "model/outer_weights.h"
#include "pass/model_pass.h"

namespace pennyweight {

/// The full-precision model after a pass forward.
struct OuterView {
  const Model& model;
  const OuterWeights& outer;
  const ModelPass& pass;
};

/// Of each module outside the blocks, by candidates, the KL with it alone
/// rounded: measured over the first batches with GPTQ's rounding, under what
/// the head reads, at settings.gptq_bits, and elsewhere as much more or less
/// as the errors of rounding to nearest are.
std::vector<ModuleCosts> measure_outer_costs(
    const OuterView& view,
    const CostSettings& settings,
    const ProgressFn& progress);

}  // namespace pennyweight
