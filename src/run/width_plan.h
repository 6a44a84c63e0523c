#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "format/quant_plan.h"
#include "method/widths/dynamic.h"
#include "model/model.h"
#include "run/pins/pinned_widths.h"

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
  std::string said{};    // the flag that has a say on it
};

struct WidthPlan {
  QuantPlan plan;
  std::vector<ChosenWidth> modules;
  int64_t bytes = 0;  // of all tensors
  double bits_per_weight = 0;
  double loss = 0;        // the sum of the modules'
  double bytes_read = 0;  // by a token, see bytes_read()
};

/// What is asked of widths beside a size.
struct WidthWishes {
  /// What config.json says of modules without an entry of their own; absent:
  /// what most weights get.
  std::optional<QuantSpec> common{};
  PinnedWidths pins{};
  /// A percent fewer bytes read a token may cost so many percent more loss:
  /// what is made least is
  ///
  ///   loss + prefer_active (loss_0 / read_0) read,
  ///
  /// loss_0 and read_0 being those of the widths of the least loss. Where that
  /// is not 0 the size may be met with something left.
  double prefer_active = 0;
};

/// The candidates, and the widths that modules are pinned to.
std::vector<Candidate> with_pinned(
    std::vector<Candidate> candidates,
    const PinnedWidths& pins);

/// Gives each module the width by which the least is lost within a size
/// (choose_alternatives).
class WidthChooser {
 public:
  /// The model must outlive this.
  WidthChooser(
      const Model& model,
      std::vector<Candidate> candidates,
      WidthWishes wishes = {});

  /// One loss a candidate; those that don't fit the module are passed over, and
  /// so are those that the wishes forbid. Where none fits the module stays in
  /// floats: what to tell the user of it. A pinned width need not be among the
  /// candidates: its loss is then taken as 0. A module that came packed from
  /// its publisher has that width alone, at no loss. invalid_argument where all
  /// that fit have fewer bits than is asked for.
  std::optional<std::string> add(
      const ModuleSpec& module,
      const std::vector<double>& losses);
  /// All modules are there. invalid_argument for a size below the smallest
  /// that the candidates allow, which it says, with what is pinned or packed.
  /// One above the largest gives that.
  WidthPlan choose(const SizeTarget& target) const;
  /// What to tell the user of a size above the largest that the candidates
  /// allow; empty for one that can be met.
  std::string about_largest(const SizeTarget& target) const;
  int64_t bytes_asked(const SizeTarget& target) const;
  /// Each module as `specs` has it, in the order of add().
  WidthPlan plan_for(const std::vector<Candidate>& specs) const;

 private:
  struct Choice {
    ModuleSpec module;
    std::vector<Candidate> candidates;  // that fit it
    Alternatives costs;
    std::string reason;
    std::string said{};
    bool pinned = false;  // there is nothing to choose
  };

  void require_room(const SizeTarget& target, int64_t room, int64_t others)
      const;
  Choice published_choice(const ModuleSpec& module, int item) const;
  QuantPlan plan_of(const std::vector<size_t>& chosen) const;
  int64_t bytes_of(const QuantPlan& plan, bool with_carried) const;
  WidthPlan make(const std::vector<size_t>& chosen) const;

  const Model& model_;
  std::vector<Candidate> candidates_;
  WidthWishes wishes_;
  std::vector<Choice> choices_;
};

}  // namespace pennyweight
