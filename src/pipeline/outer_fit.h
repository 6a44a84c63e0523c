#pragma once

#include <map>
#include <string>
#include <vector>

#include "calibration/token_batches.h"
#include "core/json.h"
#include "core/progress.h"
#include "format/quant_plan.h"
#include "method/stage.h"
#include "model/model.h"
#include "pipeline/ranks.h"

namespace pennyweight {

/// Embedding and head, which no block holds, packed.
struct OuterFit {
  PackedBlock packed;
  Json figures = Json::object();  // by module, see GptqFigures
};

/// Rounds what the plan quantizes outside the blocks by GPTQ's pass. A head is
/// fitted to what it reads in the full-precision model, over `batches`; an
/// embedding that is the head too likewise, with a share of the Hessian's mean
/// diagonal added, which stands for its use as embedding; one that is not has
/// the search of its grids only. `name` names the progress. Errors as
/// gptq_quantize's.
OuterFit fit_outer(
    const Model& model,
    const QuantPlan& plan,
    const std::vector<TokenBatch>& batches,
    const Ranks& ranks,
    const std::string& name,
    const ProgressFn& progress);

}  // namespace pennyweight
