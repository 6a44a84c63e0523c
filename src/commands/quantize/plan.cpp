#include "commands/quantize/plan.h"

#include "commands/quantize/stages.h"
#include "core/error.h"

namespace pennyweight {

namespace {

constexpr const char* kWhere = "plan";

/// Widths of the size asked for. Which modules get them is not known without
/// text; a weight's squared rounding error stands for its cost.
WidthPlan assumed_widths(
    const Model& model,
    const QuantizePlanOptions& options) {
  const auto candidates = list_candidates(options.plan, options.target);
  WidthChooser widths(model, candidates);
  for (const ModuleSpec& module : list_homes(model.spec)) {
    std::vector<double> losses;
    for (const auto& candidate : candidates) {
      const double steps = candidate ? double(1 << candidate->bits) : 1e9;
      losses.push_back(double(module.out * module.in) / (steps * steps));
    }
    widths.add(module, losses);
  }
  return choose_widths(widths, model, candidates, options.target, kWhere);
}

}  // namespace

QuantizePlanReport plan_quantize(
    const fs::path& model_folder,
    const QuantizePlanOptions& options) {
  const auto model = open_full_model(model_folder, options.plan, kWhere);
  const auto size = model_size(model);
  const auto widths = assumed_widths(model, options);
  QuantizePlanReport report;
  report.parameters = size.parameters;
  report.bytes_in = size.bytes;
  report.bytes_out = widths.bytes;
  report.bits_per_weight = widths.bits_per_weight;
  const int length = options.plan.mix.sequence_length;
  report.rates = measure_rates(model, length);
  report.notes = model.spec.notes;
  if (const auto text = report.rates.warning(); !text.empty()) {
    report.notes.push_back(text);
  }
  for (const std::string effort : {"fast", "balanced", "best"}) {
    auto wanted = options.plan;
    wanted.effort = effort;
    PlannedEffort planned;
    planned.effort = effort;
    planned.sizes = stage_sizes(wanted);
    if (!learns(widths)) {
      planned.sizes.learn_steps = 0;
    }
    planned.seconds =
        plan_time(model, planned.sizes, length, report.rates, &widths);
    planned.range = plan_range(planned.seconds, report.rates);
    planned.memory = plan_memory(
        model, widths, planned.sizes, length, options.plan.memory_limit);
    report.efforts.push_back(std::move(planned));
  }
  return report;
}

Json to_json(const QuantizePlanReport& report) {
  Json efforts = Json::array();
  for (const auto& planned : report.efforts) {
    efforts.push_back(
        {{"effort", planned.effort},
         {"sizes", to_json(planned.sizes)},
         {"seconds",
          {{"start", planned.seconds.start},
           {"costs", planned.seconds.costs},
           {"nearest", planned.seconds.nearest},
           {"gptq", planned.seconds.gptq},
           {"learned", planned.seconds.learned},
           {"dwq", planned.seconds.dwq},
           {"report", planned.seconds.report},
           {"total", planned.seconds.total()},
           {"low", planned.range.low},
           {"high", planned.range.high}}},
         {"memory",
          {{"costs", planned.memory.costs},
           {"rounding", planned.memory.rounding},
           {"dwq", planned.memory.dwq},
           {"peak", planned.memory.peak()}}}});
  }
  return {
      {"parameters", report.parameters},
      {"bytes_in", report.bytes_in},
      {"bytes", report.bytes_out},
      {"bits_per_weight", report.bits_per_weight},
      {"measured", to_json(report.rates)},
      {"efforts", efforts},
      {"notes", report.notes}};
}

}  // namespace pennyweight
