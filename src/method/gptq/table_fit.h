#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/progress.h"
#include "format/quant_plan.h"
#include "method/block_method.h"
#include "method/gptq/gptq.h"
#include "model/model.h"
#include "pass/process_group.h"
#include "pass/token_batches.h"

namespace pennyweight {

/// Of a tied embedding: the weight of its use as embedding, in units of its use
/// as head. On SmolLM2-135M at 4 bits the two cost KL 0.011 and 0.057 when
/// rounded to nearest, whose errors weigh all inputs alike.
inline constexpr double kTiedShare = 0.2;

/// Embedding and head, which no block holds, packed.
struct TableFit {
  PackedBlock packed;
  Json figures = Json::object();  // by module, see GptqFigures
};

/// Rounding of one module outside the blocks, of a Hessian that is factored
/// once. `model` and `module` must outlive it.
class TableRounding {
 public:
  /// gram: the sum of x x^T over what the head reads; of an embedding that is
  /// not the head it is not looked at.
  TableRounding(
      const Model& model,
      const ModuleSpec& module,
      std::vector<float> gram,
      const GptqOptions& options);

  struct Rounded {
    ops::QuantizedWeight weight;
    double loss_share = 1;  // of rounding to nearest's, see GptqFigures
  };
  Rounded round(const QuantSpec& spec) const;

 private:
  const Model& model_;
  const ModuleSpec& module_;
  GptqOptions options_;
  GptqHessian hessian_;
};

/// Whether logits are made by it.
bool is_head(const ModuleSpec& module);

/// Rounds what the plan quantizes outside the blocks by GPTQ's pass. A head is
/// fitted to what it reads in the full-precision model, over `batches`; an
/// embedding that is the head too likewise, with a share of the Hessian's mean
/// diagonal added, which stands for its use as embedding; one that is not has
/// the search of its grids only. `name` names the progress. Errors as
/// gptq_quantize's.
TableFit fit_tables(
    const Model& model,
    const QuantPlan& plan,
    const std::vector<TokenBatch>& batches,
    const ProcessGroup& ranks,
    const std::string& name,
    const ProgressFn& progress);

}  // namespace pennyweight
