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
  Json json{
      {"cost_sequences", sizes.cost_sequences},
      {"cost_row_step", sizes.cost_row_step},
      {"gate_sequences", sizes.gate_sequences},
      {"block_gate", sizes.block_gate},
      {"report_sequences", sizes.report_sequences},
      {"gptq_sequences", sizes.gptq_sequences},
      {"fold_every", sizes.fold_every},
      {"learn_steps", sizes.learn_steps},
      {"dwq_sequences", sizes.dwq_sequences},
      {"dwq_epochs", sizes.dwq_epochs}};
  if (sizes.dwq_rate) {
    json["dwq_rate"] = *sizes.dwq_rate;
  }
  return json;
}

StageSizes sizes_from_json(const Json& json) {
  StageSizes sizes;
  sizes.cost_sequences = json.at("cost_sequences").get<int>();
  sizes.cost_row_step = json.at("cost_row_step").get<int>();
  sizes.gate_sequences = json.at("gate_sequences").get<int>();
  sizes.block_gate = json.at("block_gate").get<int>();
  sizes.report_sequences = json.at("report_sequences").get<int>();
  sizes.gptq_sequences = json.at("gptq_sequences").get<int>();
  sizes.fold_every = json.at("fold_every").get<int>();
  sizes.learn_steps = json.at("learn_steps").get<int>();
  sizes.dwq_sequences = json.at("dwq_sequences").get<int>();
  sizes.dwq_epochs = json.at("dwq_epochs").get<int>();
  if (json.contains("dwq_rate")) {
    sizes.dwq_rate = json.at("dwq_rate").get<double>();
  }
  return sizes;
}

}  // namespace pennyweight
