#include <memory>

#include "core/error.h"
#include "core/options.h"
#include "pipeline/quantize.h"

namespace pennyweight {

namespace {

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ErrorCode::invalid_argument, "quantize", what);
}

}  // namespace

StageSizes stage_sizes(const PlanOptions& options) {
  const auto& effort = options.effort;
  StageSizes sizes;
  if (effort == "fast") {
    sizes.cost_sequences = 8;
    sizes.cost_row_step = 4;
    sizes.gate_sequences = 8;
    sizes.block_gate = 4;
    sizes.report_sequences = 8;
    sizes.gptq_sequences = 48;
  } else if (effort == "balanced") {
    sizes.gptq_sequences = 128;
    sizes.learn_steps = 60;
    sizes.dwq_sequences = 128;
  } else {
    sizes.cost_sequences = 32;
    sizes.gptq_sequences = 192;
    sizes.fold_every = 8;
    sizes.learn_steps = 128;
    sizes.dwq_sequences = 512;
  }
  const auto replace = [](const char* name,
                          const std::optional<int>& wanted,
                          int least,
                          int& value) {
    if (wanted && *wanted < least) {
      refuse(
          "--" + std::string(name) + " has to be at least " +
          std::to_string(least));
    }
    value = wanted.value_or(value);
  };
  replace("gptq-samples", options.gptq_samples, 1, sizes.gptq_sequences);
  replace("learn-steps", options.learn_steps, 0, sizes.learn_steps);
  replace("dwq-samples", options.dwq_samples, 0, sizes.dwq_sequences);
  return sizes;
}

Json to_json(const StageOutcome& outcome) {
  return {
      {"name", outcome.name},
      {"kl", outcome.kl},
      {"seconds", outcome.seconds},
      {"kept", outcome.kept},
      {"note", outcome.note},
      {"figures", outcome.figures}};
}

Json to_json(const QuantizeReport& report) {
  Json stages = Json::array();
  for (const auto& outcome : report.stages) {
    stages.push_back(to_json(outcome));
  }
  return {
      {"output", report.output},
      {"parameters", report.parameters},
      {"bytes_in", report.bytes_in},
      {"bytes", report.bytes_out},
      {"bits_per_weight", report.bits_per_weight},
      {"kl", report.kl},
      {"perplexity", report.perplexity},
      {"perplexity_reference", report.perplexity_reference},
      {"top1", report.top1},
      {"stages", stages},
      {"seconds", report.seconds},
      {"peak_rss", report.peak_rss},
      {"notes", report.notes},
      {"page", report.page}};
}

void refuse_beside_recipe(const QuantizeOptions& options) {
  const auto given = options_to_json(options, true);
  // Not on the stack, where g++ 12 takes its strings for uninitialized.
  const auto defaults = std::make_unique<QuantizeOptions>();
  const auto absent = options_to_json(*defaults, true);
  for (const auto& [name, value] : given.items()) {
    if (value != absent.at(name) && name != "recipe" && name != "data-path" &&
        name != "assume-family") {
      refuse("--recipe says what --" + name + " sets; leave that out");
    }
  }
}

}  // namespace pennyweight
