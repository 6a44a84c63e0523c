#pragma once

#include <string>

#include "model/model.h"
#include "pipeline/time_plan.h"

namespace pennyweight {

/// Where a whole run of these sizes takes more than `seconds`: cuts the
/// sequences that costs are measured on until costs take a fifth of that. What
/// to tell the user, empty where nothing was cut.
std::string fit_costs_into_time(
    const Model& model,
    int sequence_length,
    double rate,
    double seconds,
    StageSizes& sizes);

/// Cuts steps and sequences of what is still to be done so that it takes no
/// more than `seconds`; what to tell the user, empty where nothing was cut.
std::string fit_into_time(
    const Model& model,
    int sequence_length,
    double rate,
    double seconds,
    StageSizes& sizes);

/// "90", "90s", "30m" or "2h" to seconds; invalid_argument, naming `option`,
/// for anything else and for what is not above zero.
double parse_seconds(const std::string& text, const std::string& option);

/// A run's time: cuts stages to what fits, and learns from what costs take how
/// far this machine is from the estimates.
class TimeLimit {
 public:
  /// `rate`: see measure_rate; `seconds` from the run's start.
  TimeLimit(
      const Model& model,
      int sequence_length,
      double rate,
      double seconds)
      : model_(model),
        length_(sequence_length),
        rate_(rate),
        seconds_(kPlanned * seconds) {}

  /// As fit_costs_into_time, `passed` seconds after the start.
  std::string fit_costs(double passed, StageSizes& sizes) const {
    return fit_costs_into_time(
        model_, length_, rate_, seconds_ - passed, sizes);
  }
  /// Costs of these sizes took so many seconds.
  void costs_took(double seconds, const StageSizes& sizes);
  /// As fit_into_time, at the pace of the costs.
  std::string fit_stages(double passed, StageSizes& sizes) const {
    return fit_into_time(
        model_, length_, rate_, (seconds_ - passed) / pace_, sizes);
  }

 private:
  /// The rest is for what estimates miss.
  static constexpr double kPlanned = 0.92;

  const Model& model_;
  int length_;
  double rate_;
  double seconds_;
  double pace_ = 1;  // seconds for one that is estimated
};

}  // namespace pennyweight
