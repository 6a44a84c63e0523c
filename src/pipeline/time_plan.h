#pragma once

#include "core/json.h"
#include "pipeline/quantize.h"

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

/// Sequences that distillation goes through in whole steps, those that choose
/// the rate counted in.
double trained_sequences(const StageSizes& sizes);

Json to_json(const StageSizes& sizes);
StageSizes sizes_from_json(const Json& json);

}  // namespace pennyweight
