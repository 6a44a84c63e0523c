#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/json_fwd.h"
#include "core/progress.h"
#include "method/widths/dynamic.h"
#include "model/model.h"

namespace pennyweight {

struct CostSettings {
  std::vector<Candidate> candidates;
  int64_t batch_tokens = 2048;
  /// Of the activations between blocks, what stays in memory; the rest goes
  /// to a file in scratch_folder.
  int64_t activation_bytes = int64_t{128} << 20;
  std::filesystem::path scratch_folder;
  uint64_t seed = 0;
  /// Widths at which GPTQ is run; see spread_losses().
  std::vector<int> gptq_bits{2, 3, 4};
  /// Of a linear's rows GPTQ rounds one tile in so many; see rounding_losses().
  int64_t row_step = 1;
  /// Tokens over which modules outside the blocks are measured, one sequence
  /// at least.
  int64_t table_tokens = 2048;
};

struct ModuleCosts {
  std::string path;  // of list_stored_modules()
  int64_t parameters = 0;
  /// Of each candidate the mean KL in nats that rounding this module alone
  /// adds; NaN: it does not fit, or the module is published packed.
  std::vector<double> losses;
};

struct RoundingCosts {
  std::vector<Candidate> candidates;
  std::vector<ModuleCosts> modules;  // as list_stored_modules() has them
  int64_t tokens = 0;
};

/// And back: corrupt Error for what is not such a table.
Json to_json(const RoundingCosts& costs);
RoundingCosts costs_from_json(const Json& json, const std::string& origin);

/// What rounding each module by GPTQ to each candidate costs. Of a block's
/// linears by the Fisher information at the full-precision weights (see
/// method/learned/rounding_loss.h): one pass forward and one backward, block by
/// block. Embedding and head, which are measured: the model is run with one of
/// them rounded. Matrices of a stack are counted together; experts share the
/// statistics of all their stack's tokens. Memory: a block with its traces of
/// a batch and two Gram matrices for each linear, embedding or head
/// rounded, and activation_bytes. The same for any number of threads. numeric
/// Error, naming the module, for weights that are not finite.
RoundingCosts measure_costs(
    const Model& model,
    const std::vector<std::vector<int32_t>>& sequences,
    const CostSettings& settings,
    const ProgressFn& progress);

}  // namespace pennyweight
