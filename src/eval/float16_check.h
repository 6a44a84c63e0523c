#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/json_fwd.h"
#include "core/progress.h"
#include "eval/float16_range.h"
#include "model/model.h"

namespace pennyweight {

namespace fs = std::filesystem;

/// Whether a model's activations fit float16, which its weights are about to
/// be cast to.
struct Float16Check {
  int64_t tokens = 0;  // that were run; 0: nothing was checked
  Float16Peaks peaks;
  double seconds = 0;
  /// For the user: what overflows, or comes near to it on so little text.
  std::vector<std::string> warnings;
};

/// Runs the model, in the type of its weights, over some dozen tokens of a text
/// that is built in (arbitrary ones where there is no tokenizer.json). `remedy`
/// says how a user gets another type. Errors as Tokenizer::load's.
Float16Check check_float16(
    const Model& model,
    const std::string& remedy,
    const ProgressFn& progress = {});

Json to_json(const Float16Check& check);

}  // namespace pennyweight
