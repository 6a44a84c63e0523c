#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "method/widths/sensitivity.h"
#include "model/spec/decoder_spec.h"

namespace pennyweight {

/// What a module loses by each candidate; nothing is known of one that is
/// published packed.
struct ModuleLosses {
  std::vector<double> losses;
  double sensitivity = 0;  // mlx_lm's: of the last candidate, a million weights
};

ModuleLosses module_losses(
    const Sensitivities& measured,
    const ModuleSpec& module);

/// A file of sensitivities. For two widths mlx_lm's pairs of a module and a
/// number; with candidates of the user's an object with all figures.
class SensitivityFile {
 public:
  /// `listed` says that the candidates are the user's own list.
  SensitivityFile(std::vector<Candidate> candidates, bool listed)
      : candidates_(std::move(candidates)), listed_(listed) {}

  /// What a file of these holds.
  std::string text(
      const Sensitivities& measured,
      const QuantSpec& low,
      const std::vector<ModuleSpec>& modules) const;

  /// Of each module, in their order. not_found Error for a module or candidate
  /// that the file has not, corrupt for one that is no such file,
  /// invalid_argument for pairs where candidates are listed.
  std::vector<ModuleLosses> read(
      const std::filesystem::path& file,
      const std::vector<ModuleSpec>& modules) const;

 private:
  std::vector<Candidate> candidates_;
  bool listed_;
};

}  // namespace pennyweight
