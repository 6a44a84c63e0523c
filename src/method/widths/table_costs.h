#pragma once

#include <vector>

#include "method/widths/rounding_costs.h"
#include "model/embedding_and_head.h"
#include "pass/model_pass.h"

namespace pennyweight {

/// The full-precision model after a pass forward.
struct FullPass {
  const Model& model;
  const EmbeddingAndHead& tables;
  const ModelPass& pass;
};

/// What each candidate width of the embedding and of the head costs: the mean
/// KL(full || rounded) with that table alone rounded. It is measured with
/// GPTQ's rounding at settings.gptq_bits, over the first batches of the text;
/// other candidates follow from rtn's loss (see spread_losses()).
std::vector<ModuleCosts> measure_table_costs(
    const FullPass& view,
    const CostSettings& settings,
    const ProgressFn& progress);

}  // namespace pennyweight
