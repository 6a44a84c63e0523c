#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "core/time_left.h"
#include "run/time/time_limit.h"
#include "run/work/staged_work.h"

namespace pennyweight {

/// --time-limit of a run: before each stage, cuts those that are still to come
/// to what fits, and keeps on disk what it decided, so that a run that is gone
/// on with does what it has begun.
class StageBudget {
 public:
  using Clock = std::chrono::steady_clock;
  using NoteFn = std::function<void(const std::string& text)>;

  /// All references must outlive this. `note` tells the user.
  StageBudget(
      TimeLimit limit,
      Clock::time_point start,
      StagedWork& work,
      NoteFn note);

  void fit_costs(StageSizes& sizes);
  /// Once widths are chosen: what is wanted of the stages after that.
  void begin(const WidthPlan& widths, const StageSizes& wanted);
  /// Before the stage called `name`.
  void fit(const std::string& name, StageSizes& sizes);
  /// The stage is done.
  void took(const std::string& name, double seconds, const StageSizes& sizes);

 private:
  double passed() const {
    return seconds_since(start_);
  }
  void tell(const std::string& text) const;

  TimeLimit limit_;
  Clock::time_point start_;
  StagedWork& work_;
  NoteFn note_;
  StageSizes wanted_;
};

}  // namespace pennyweight
