#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "commands/quantize/memory.h"
#include "commands/quantize/quantize.h"
#include "run/time/time_plan.h"

namespace pennyweight {

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

struct QuantizePlanReport {
  int64_t parameters = 0;
  int64_t bytes_in = 0;
  int64_t bytes_out = 0;  // the most there may be where widths are chosen
  double bits_per_weight = 0;
  MachineRates rates;
  std::vector<std::string> notes;
  std::vector<PlannedEffort> efforts;
};

Json to_json(const QuantizePlanReport& report);

/// What `quantize` will make and take, without running it: samples
/// of the work are timed for some seconds, no text is read. Errors as
/// quantize_model's.
QuantizePlanReport plan_quantize(
    const fs::path& model_folder,
    const QuantizePlanOptions& options);

}  // namespace pennyweight
