#pragma once

#include <map>
#include <string>
#include <vector>

#include "method/widths/sensitivity.h"

namespace pennyweight {

/// A module's effects of each candidate, then of none and of low.
using Effects = std::vector<RoundingEffect>;

/// Sums what rounding weights does, module by module.
class EffectSums {
 public:
  /// `settings` must outlive this.
  explicit EffectSums(const SensitivitySettings& settings)
      : settings_(settings) {}

  /// sum += those of some rows [rows, in], errors only where they are wanted.
  /// `low`: the rows rounded to the lowest width; `gradient`: there.
  void add(
      const mx::array& weight,
      const mx::array& low,
      const mx::array& gradient,
      bool errors,
      Effects& sum) const;
  /// A module's, to the others of its stack, which are rounded alike.
  void keep(const std::string& stored, int64_t parameters, Effects effects);
  std::map<std::string, ModuleSensitivity> take() {
    return std::move(modules_);
  }

 private:
  std::vector<Candidate> asked(int64_t in) const;

  const SensitivitySettings& settings_;
  std::map<std::string, ModuleSensitivity> modules_;
};

}  // namespace pennyweight
