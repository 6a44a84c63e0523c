#pragma once

#include <string>
#include <utility>

#include "model/model.h"
#include "run/time/time_plan.h"

namespace pennyweight {

/// What a run's times are reckoned from; all outlive it.
struct TimeBasis {
  const Model& model;
  int sequence_length;
  const MachineRates& rates;
  const WidthPlan* widths = nullptr;  // once they are known

  TimePlan plan(const StageSizes& sizes) const {
    return plan_time(model, sizes, sequence_length, rates, widths);
  }
};

/// Where a whole run of these sizes takes more than `seconds`: cuts the
/// sequences that costs are measured on until costs take a fifth of that. What
/// to tell the user, empty where nothing was cut.
std::string
fit_costs_into_time(const TimeBasis& basis, double seconds, StageSizes& sizes);

/// Cuts steps and sequences of the stages from `next` on so that they take no
/// more than `seconds`; what to tell the user, empty where nothing was cut.
std::string fit_into_time(
    const TimeBasis& basis,
    PlannedStage next,
    double seconds,
    StageSizes& sizes);

/// "90", "90s", "30m" or "2h" to seconds; invalid_argument, naming `option`,
/// for anything else and for what is not above zero.
double parse_seconds(const std::string& text, const std::string& option);

/// A run's time: cuts stages to what fits, and learns from each that is done
/// how far this machine is from the estimates.
class TimeLimit {
 public:
  /// `seconds` from the run's start.
  TimeLimit(
      const Model& model,
      int sequence_length,
      MachineRates rates,
      double seconds)
      : model_(model),
        length_(sequence_length),
        rates_(std::move(rates)),
        seconds_(kPlanned * seconds) {}

  /// As fit_costs_into_time, `passed` seconds after the start.
  std::string fit_costs(double passed, StageSizes& sizes) const {
    return fit_costs_into_time(basis(), seconds_ - passed, sizes);
  }
  /// From then on a plan knows which blocks have few bits.
  void know(const WidthPlan& widths) {
    widths_ = &widths;
  }
  /// A stage of these sizes took so many seconds.
  void took(PlannedStage stage, double seconds, const StageSizes& sizes);
  /// As fit_into_time, at the pace of the stages that are done.
  std::string fit(PlannedStage next, double passed, StageSizes& sizes) const {
    return fit_into_time(basis(), next, (seconds_ - passed) / pace(), sizes);
  }
  /// Seconds for one that is estimated.
  double pace() const;

 private:
  /// The rest is for what estimates miss.
  static constexpr double kPlanned = 0.95;

  TimeBasis basis() const {
    return {model_, length_, rates_, widths_};
  }

  const Model& model_;
  int length_;
  MachineRates rates_;
  double seconds_;
  const WidthPlan* widths_ = nullptr;
  double planned_ = 0;  // of what is done
  double took_ = 0;
};

}  // namespace pennyweight
