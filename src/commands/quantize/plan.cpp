#include "commands/command.h"
#include "commands/quantize/memory.h"
#include "commands/quantize/stages.h"
#include "core/error.h"
#include "core/json.h"
#include "core/text.h"
#include "run/time/time_plan.h"

namespace pennyweight {

namespace {

struct QuantizePlanOptions {
  PlanOptions plan;
  TargetOptions target;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    PlanOptions::visit(self.plan, option);
    TargetOptions::visit(self.target, option);
  }
};

/// What an effort would take.
struct PlannedEffort {
  std::string effort;
  StageSizes sizes;
  TimePlan seconds;
  TimeRange range;  // of the total
  QuantizeMemory memory;
};

/// Widths of the size asked for. Which modules get them is not known without
/// text; a weight's squared rounding error stands for its cost.
WidthPlan assumed_widths(
    const Model& model,
    const Session& session,
    const QuantizePlanOptions& options,
    const WidthWishes& wishes) {
  const auto candidates =
      list_candidates(model, options.plan, options.target, wishes.pins);
  WidthChooser widths(model, candidates, wishes);
  for (const ModuleSpec& module : list_stored_modules(model.spec)) {
    std::vector<double> losses;
    for (const auto& candidate : candidates) {
      const double steps = candidate ? double(1 << candidate->bits) : 1e9;
      losses.push_back(double(module.out * module.in) / (steps * steps));
    }
    widths.add(module, losses);
  }
  return choose_widths(
      widths, model, candidates, options.target, wishes.pins, session);
}

PlannedEffort plan_effort(
    const Model& model,
    const WidthPlan& widths,
    const MachineRates& rates,
    PlanOptions options,
    const std::string& effort) {
  options.effort = effort;
  PlannedEffort planned;
  planned.effort = effort;
  planned.sizes = stage_sizes(options);
  if (!learns(widths)) {
    planned.sizes.learn_steps = 0;
  }
  const int length = options.mix.sequence_length;
  planned.seconds = plan_time(model, planned.sizes, length, rates, &widths);
  planned.range = plan_range(planned.seconds, rates);
  planned.memory =
      plan_memory(model, widths, planned.sizes, length, options.memory_limit);
  return planned;
}

Json to_json(const PlannedEffort& planned) {
  const auto& seconds = planned.seconds;
  const auto& memory = planned.memory;
  return {
      {"effort", planned.effort},
      {"sizes", to_json(planned.sizes)},
      {"seconds",
       {{"start", seconds.start},
        {"costs", seconds.costs},
        {stage::kRtn, seconds.nearest},
        {stage::kGptq, seconds.gptq},
        {stage::kLearned, seconds.learned},
        {stage::kDwq, seconds.dwq},
        {"report", seconds.report},
        {"total", seconds.total()},
        {"low", planned.range.low},
        {"high", planned.range.high}}},
      {"memory",
       {{"costs", memory.costs},
        {"rounding", memory.rounding},
        {stage::kDwq, memory.dwq},
        {"peak", memory.peak()}}}};
}

std::string describe(const std::vector<PlannedEffort>& efforts) {
  std::vector<std::vector<std::string>> rows{
      {"effort",
       "time",
       "memory",
       "range",
       "GPTQ",
       stage::kLearned,
       "distilled"}};
  for (const auto& planned : efforts) {
    const auto& sizes = planned.sizes;
    rows.push_back(
        {planned.effort,
         human_time(planned.seconds.total()),
         human_bytes(double(planned.memory.peak())),
         human_time(planned.range.low) + " to " +
             human_time(planned.range.high),
         std::to_string(sizes.gptq_sequences) + " sequences",
         std::to_string(sizes.learn_steps) + " steps a block",
         std::to_string(sizes.dwq_sequences) + " sequences"});
  }
  return table(rows);
}

/// What `quantize` will make and take, without running it: samples of the work
/// are timed for some seconds, no text is read.
RunReport run(Session& session, const QuantizePlanOptions& options) {
  const auto folder = session.model_folder(options.plan.model);
  const auto model = open_full_model(session, folder, options.plan);
  const auto size = model_size(model);
  const auto wishes = width_wishes(session, model, options.plan);
  const auto widths = assumed_widths(model, session, options, wishes);
  const auto rates = measure_rates(
      model, options.plan.mix.sequence_length, session.progress());
  auto& report = session.report();
  report.parameters = size.parameters;
  report.bytes_in = size.bytes;
  report.notes.insert(
      report.notes.end(), model.spec.notes.begin(), model.spec.notes.end());
  session.describe_packing(model);
  if (const auto text = rates.warning(); !text.empty()) {
    report.notes.push_back(text);
  }
  std::vector<PlannedEffort> efforts;
  Json json = Json::array();
  for (const char* effort : {"fast", "balanced", "best"}) {
    efforts.push_back(plan_effort(model, widths, rates, options.plan, effort));
    json.push_back(to_json(efforts.back()));
  }
  report.figures = {
      {"bytes", widths.bytes},
      {"bits_per_weight", widths.bits_per_weight},
      {"bytes_read", widths.bytes_read},
      {"pins", wishes.pins.json()},
      {"measured", to_json(rates)},
      {"efforts", json}};
  report.text = "size: " + human_bytes(double(size.bytes)) + " -> at most " +
      human_bytes(double(widths.bytes)) + ", " +
      fixed(widths.bits_per_weight, 3) + " bits a weight, scales included; " +
      human_bytes(widths.bytes_read) + " of weights read a token\n" +
      wishes.pins.text() + describe(efforts) +
      "times are of samples of this work, taken here in " +
      fixed(rates.seconds, 1) + " s on " + std::to_string(rates.threads) +
      " threads; reading the text comes on top\n";
  report.text += notes_text(report);
  return report;
}

}  // namespace

Command plan_command() {
  return make_command<QuantizePlanOptions>(
      "plan",
      "Say what quantize will make and take, without running it",
      "  pennyweight plan Qwen/Qwen3-0.6B --target-bpw 4.5\n",
      run);
}

}  // namespace pennyweight
