#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/json_fwd.h"
#include "core/progress.h"
#include "export/conversion.h"
#include "export/mtp.h"

namespace pennyweight {

namespace fs = std::filesystem;

struct WrittenModel {
  int64_t bytes = 0;           // of all tensors
  double bits_per_weight = 0;  // of the language model
  std::vector<std::string> side_files;
  CarriedHeads mtp;
};

/// Writes a whole model folder, of whose source check_folders() has said what
/// is to be said: what is copied, weights, config.json and a card that says
/// where it is from (`source`, as the user named it) and `summary`, in which
/// "%bpw" stands for the bits a weight. `where` names the progress. `full` is
/// the full model, where `model` was made from it: the card says of that how it
/// came packed.
WrittenModel write_model(
    const Model& model,
    const Conversion& conversion,
    const fs::path& folder,
    const std::string& source,
    std::string summary,
    const std::string& where,
    const ProgressFn& progress,
    const Model* full = nullptr);

}  // namespace pennyweight
