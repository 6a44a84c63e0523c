#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/json_fwd.h"
#include "core/progress.h"
#include "method/widths/dynamic.h"
#include "model/model.h"

namespace pennyweight {

struct SensitivitySettings {
  QuantSpec low;
  std::vector<Candidate> candidates;
  int64_t batch_tokens = 4096;
  /// Of the activations between blocks, what stays in memory; the rest goes
  /// to a file in scratch_folder.
  int64_t activation_bytes = int64_t{128} << 20;
  std::filesystem::path scratch_folder;
};

struct ModuleSensitivity {
  int64_t parameters = 0;
  double whole = 0;  // sum of g (Q_low(W) - W)
  double low_error = 0;
  std::vector<RoundingEffect> effects;  // of each candidate
};

struct Sensitivities {
  double loss = 0;  // mean KL to the full model with all weights rounded to low
  std::map<std::string, ModuleSensitivity> modules;
};

/// One pass forward through the full-precision model and the one whose every
/// matrix is rounded to `low`, and one backward, block by block: each block is
/// run again from its kept inputs, and of its gradients only sums remain. The
/// loss is the mean over tokens of KL(full || low). Memory: a block with its
/// gradients, embedding and head rounded to `low`, and activation_bytes. Parts
/// of a stack are counted together; what is published packed stays so, and has
/// no entry. numeric Error for weights that are not
/// finite.
Sensitivities measure_sensitivities(
    const Model& model,
    const std::vector<std::vector<int32_t>>& sequences,
    const SensitivitySettings& settings,
    const ProgressFn& progress);

}  // namespace pennyweight
