#pragma once

#include "core/json_fwd.h"
#include "method/chain.h"
#include "run/time/machine_rates.h"
#include "run/width_plan.h"

namespace pennyweight {

/// Stages of `quantize`, in their order.
enum class PlannedStage { costs, nearest, gptq, learned, dwq, report };

/// Seconds that each stage will take, by what its work takes on this machine.
struct TimePlan {
  double start = 0;  // reading of the tokenizer; text is not counted
  double costs = 0;
  double nearest = 0;
  double gptq = 0;
  double learned = 0;
  double dwq = 0;
  double report = 0;
  /// What is saved where training stops early, and what it takes beyond that
  /// where it has to search longer.
  double early = 0;
  double late = 0;

  /// From this stage on.
  double from(PlannedStage stage) const;
  double of(PlannedStage stage) const;
  double total() const {
    return start + from(PlannedStage::costs);
  }
};

/// Of a run of these sizes; no learned rounding where learn_steps is 0. See
/// StageTimes for `widths`.
TimePlan plan_time(
    const Model& model,
    const StageSizes& sizes,
    int sequence_length,
    const MachineRates& rates,
    const WidthPlan* widths = nullptr);

/// Between which a run will end, on this machine as busy as it is or idle.
struct TimeRange {
  double low = 0;
  double high = 0;
};
TimeRange plan_range(const TimePlan& plan, const MachineRates& rates);

Json to_json(const StageSizes& sizes);
StageSizes sizes_from_json(const Json& json);

}  // namespace pennyweight
