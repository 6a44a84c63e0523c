#pragma once

#include "core/json.h"
#include "core/progress.h"
#include "method/chain.h"
#include "method/widths/rounding_costs.h"
#include "pass/calibration_mix.h"
#include "run/width_plan.h"
#include "run/work/work_folder.h"

namespace pennyweight {

/// The work folder of a run that is made of others: what it has come to is one
/// JSON object, on disk after each part.
class StagedWork {
 public:
  /// As WorkFolder's.
  StagedWork(
      const fs::path& target,
      const WorkSettings& settings,
      const ResumePolicy& policy);

  /// Whether a run is gone on with.
  bool resumed() const {
    return resumed_;
  }
  Json& state() {
    return state_;
  }
  void save();
  /// Where parts write their outputs, name by name.
  fs::path stages() const {
    return work_.stages().path();
  }
  const std::vector<std::string>& warnings() const {
    return work_.warnings();
  }
  /// An empty place for a part that begins.
  fs::path fresh_stage(const std::string& name) const;
  void drop_stage(const std::string& name) const;
  /// What tells whether a part's output is still as it is now.
  Json sums(const std::string& name) const;
  /// Whether it is there and as it was then.
  bool holds(const std::string& name, const Json& sums) const;
  void remove() {
    work_.remove();
  }

  /// What measure_costs gives on these sizes' first sequences, or what it gave
  /// before a kill.
  RoundingCosts costs(
      const Model& model,
      const std::vector<std::vector<int32_t>>& sequences,
      const std::vector<Candidate>& candidates,
      const StageSizes& sizes,
      uint64_t seed,
      const ProgressFn& progress);

 private:
  WorkFolder work_;
  Json state_ = Json::object();
  bool resumed_ = false;
};

/// Takes stages out of a run's state whose output is wanted (the best so far by
/// "kl"; with `all_kept` the last) and no longer as it was. Their names.
std::vector<std::string> drop_damaged_stages(StagedWork& work, bool all_kept);

/// A chooser that has every module of the model, with these costs; without
/// costs all are 0. `notes` takes what a user should be told. Errors as
/// WidthChooser::add's.
WidthChooser priced_widths(
    const Model& model,
    const std::vector<Candidate>& candidates,
    const RoundingCosts& costs,
    std::vector<std::string>& notes,
    const WidthWishes& wishes = {});

}  // namespace pennyweight
