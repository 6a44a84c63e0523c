#include "run/plan_options.h"

#include "core/error.h"

namespace pennyweight {

namespace {

[[noreturn]] void refuse(const std::string& what) {
  throw argument_error("quantize", what);
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

}  // namespace pennyweight
