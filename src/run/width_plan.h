#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "format/quant_plan.h"
#include "method/widths/dynamic.h"
#include "model/model.h"

namespace pennyweight {

/// How large a model may become; one of the two.
struct SizeTarget {
  std::optional<double> bits_per_weight;
  std::optional<int64_t> bytes;  // of all tensors
};

/// "4.2GB", or the bits a weight where there is none; invalid_argument for
/// what is neither above 0 nor at most 32 bits.
SizeTarget size_target(
    std::optional<double> bits_per_weight,
    const std::optional<std::string>& bytes,
    const std::string& where);

struct ChosenWidth {
  ModuleSpec module;
  Candidate spec;        // absent: stays in floats
  double loss = 0;       // estimated to be added by this choice
  std::string reason{};  // why it stays in floats
};

struct WidthPlan {
  QuantPlan plan;
  std::vector<ChosenWidth> modules;
  int64_t bytes = 0;  // of all tensors
  double bits_per_weight = 0;
  double loss = 0;  // the sum of the modules'
};

/// Gives each module the width by which the least is lost within a size
/// (choose_alternatives).
class WidthChooser {
 public:
  /// The model must outlive this. `common` is what config.json says of modules
  /// without an entry of their own; absent: what most weights get.
  WidthChooser(
      const Model& model,
      std::vector<Candidate> candidates,
      std::optional<QuantSpec> common = std::nullopt);

  /// One loss a candidate; those that don't fit the module are passed over.
  /// Where none fits the module stays in floats: what to tell the user of it.
  std::optional<std::string> add(
      const ModuleSpec& module,
      const std::vector<double>& losses);
  /// All modules are there. invalid_argument for a size that the candidates
  /// can't meet.
  WidthPlan choose(const SizeTarget& target) const;
  /// Each module as `specs` has it, in the order of add().
  WidthPlan plan_for(const std::vector<Candidate>& specs) const;

 private:
  struct Choice {
    ModuleSpec module;
    std::vector<Candidate> candidates;  // that fit it
    Alternatives costs;
    std::string reason;
  };

  QuantPlan plan_of(const std::vector<size_t>& chosen) const;
  int64_t bytes_of(const QuantPlan& plan, bool with_carried) const;
  WidthPlan make(const std::vector<size_t>& chosen) const;

  const Model& model_;
  std::vector<Candidate> candidates_;
  std::optional<QuantSpec> common_;
  std::vector<Choice> choices_;
};

}  // namespace pennyweight
