#pragma once

#include <algorithm>
#include <optional>
#include <string>

#include "core/json.h"
#include "pipeline/quantize.h"
#include "pipeline/width_plan.h"

namespace pennyweight {

/// Seconds that each stage will take, estimated from its matrix products and
/// the rate at which this machine does them.
struct TimePlan {
  double costs = 0;
  double gptq = 0;
  double learned = 0;
  double dwq = 0;
  double rest = 0;  // loading, measures of the KL, writing
  /// Once the widths are known.
  double after_costs() const {
    return gptq + learned + dwq + rest;
  }
  double total() const {
    return costs + after_costs();
  }
};

/// Products of the model's largest linear in its own type, operations a second,
/// timed for a moment.
double measure_rate(const Model& model);

/// Of a run of these sizes; no learned rounding where learn_steps is 0.
TimePlan plan_time(
    const Model& model,
    const StageSizes& sizes,
    int sequence_length,
    double rate);

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

/// What the most demanding stage takes in memory.
struct QuantizeMemory {
  int64_t rounding = 0;  // see MemoryPlan::peak
  int64_t dwq = 0;       // the student and its optimizer, the teacher's part
  int64_t peak() const {
    return std::max(rounding, dwq);
  }
};
QuantizeMemory plan_memory(
    const Model& model,
    const WidthPlan& widths,
    const StageSizes& sizes,
    int sequence_length,
    const std::optional<std::string>& limit);

Json to_json(const StageSizes& sizes);
StageSizes sizes_from_json(const Json& json);

}  // namespace pennyweight
