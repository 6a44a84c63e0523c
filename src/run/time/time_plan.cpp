#include "run/time/time_plan.h"

#include <algorithm>

#include "core/json.h"
#include "method/widths/rounding_costs.h"
#include "run/time/stage_times.h"

namespace pennyweight {

namespace {

// By how much whole runs were off their plans on an idle machine at most, as a
// share of the plan (docs/performance.md).
constexpr double kUncertain = 0.15;
// Learned rounding measures itself five times and gives up after two that are
// no better (method/learned/method.cpp); a rate is found by three trials to
// six.
constexpr double kFewestSteps = 0.4;
constexpr double kFewestTrials = 0.75;
constexpr double kMostTrials = 1.5;

}  // namespace

double TimePlan::of(PlannedStage stage) const {
  switch (stage) {
    case PlannedStage::costs:
      return costs;
    case PlannedStage::nearest:
      return nearest;
    case PlannedStage::gptq:
      return gptq;
    case PlannedStage::learned:
      return learned;
    case PlannedStage::dwq:
      return dwq;
    case PlannedStage::report:
      return report;
  }
  return 0;
}

double TimePlan::from(PlannedStage stage) const {
  double seconds = 0;
  for (int i = int(stage); i <= int(PlannedStage::report); ++i) {
    seconds += of(PlannedStage(i));
  }
  return seconds;
}

TimePlan plan_time(
    const Model& model,
    const StageSizes& sizes,
    int sequence_length,
    const MachineRates& rates,
    const WidthPlan* widths) {
  const StageTimes times(model, sizes, sequence_length, rates, widths);
  TimePlan plan{
      .start = rates.start,
      .costs = times.costs(),
      .nearest = times.nearest(),
      .gptq = times.gptq(),
      .learned = times.learned(),
      .dwq = times.dwq(),
      .report = times.report()};
  const auto [steps, trials] = distillation_steps(sizes);
  const double trial =
      trials > 0 ? plan.dwq * double(trials) / double(steps + trials) : 0;
  plan.early =
      (1 - kFewestSteps) * times.learned_steps() + (1 - kFewestTrials) * trial;
  plan.late = (kMostTrials - 1) * trial;
  return plan;
}

TimeRange plan_range(const TimePlan& plan, const MachineRates& rates) {
  const double share = std::max(kUncertain, rates.spread);
  const double total = plan.total();
  return {
      (total - plan.early) * std::max(0.0, 1 - share) /
          slowdown(rates.load, rates.threads),
      (total + plan.late) * (1 + share)};
}

Json to_json(const StageSizes& sizes) {
  Json json = Json::object();
  for (const auto& size : kStageSizes) {
    json[size.name] = sizes.*size.value;
  }
  if (sizes.dwq_rate) {
    json["dwq_rate"] = *sizes.dwq_rate;
  }
  return json;
}

StageSizes sizes_from_json(const Json& json) {
  StageSizes sizes;
  for (const auto& size : kStageSizes) {
    sizes.*size.value = json.at(size.name).get<int>();
  }
  if (json.contains("dwq_rate")) {
    sizes.dwq_rate = json.at("dwq_rate").get<double>();
  }
  return sizes;
}

}  // namespace pennyweight
