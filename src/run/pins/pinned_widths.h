#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "format/quant_plan.h"
#include "model/model.h"
#include "run/pins/pin.h"

namespace pennyweight {

/// What is asked of one module's width.
struct WidthRule {
  std::optional<QuantSpec> pinned;
  bool keep = false;
  int at_least = 0;  // bits
  std::string said;  // by which flag

  /// Whether a module may have this width; absent: unquantized.
  bool allows(const std::optional<QuantSpec>& spec) const;
};

/// What the command brings to pins.
struct PinScope {
  std::string where;  // of errors
  /// Whose group and mode a pin has that says none.
  QuantSpec common{};
  /// Only affine widths are known.
  bool affine = false;
};

/// The user's pins, settled on a model's modules.
class PinnedWidths {
 public:
  PinnedWidths() = default;
  /// invalid_argument Error, which names the flags and the module, for pins
  /// that can't be read, match nothing, contradict each other or can't be kept
  /// to the letter.
  PinnedWidths(
      const Model& model,
      const PinOptions& options,
      const PinScope& scope);

  bool empty() const {
    return uses_.empty();
  }
  /// Null: nothing is asked of it. By the path of list_stored_modules().
  const WidthRule* rule(const std::string& path) const;
  /// The widths that modules are pinned to, each once.
  std::vector<QuantSpec> widths() const;
  /// What a user should know of modules that a pattern matched, and that have
  /// no width to be chosen.
  const std::vector<std::string>& notes() const {
    return notes_;
  }

  /// Gives the modules of a plan what is asked of them. invalid_argument where
  /// a mode has no width of enough bits.
  void apply(QuantPlan& plan) const;
  /// invalid_argument, which names the module, for a plan that does not keep
  /// them; `origin` begins it.
  void require_kept(const QuantPlan& plan, const std::string& origin) const;

  /// For reports: of each flag "flag", "pattern", "width" and how many
  /// "modules" and "parameters" it is about.
  Json json() const;
  /// Lines of a summary; empty without pins.
  std::string text() const;
  /// A sentence of a model card, which a space begins; empty without pins.
  std::string sentence() const;

 private:
  struct Use {
    WidthPin pin;
    std::string width;  // "6:64"; of --keep empty
    int64_t modules = 0;
    int64_t parameters = 0;
  };

  class Settler;

  std::string where_;
  std::map<std::string, WidthRule> rules_;
  std::vector<Use> uses_;
  std::vector<std::string> notes_;
};

}  // namespace pennyweight
