#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#include "commands/quantize/quantize.h"
#include "model/model.h"
#include "run/width_plan.h"

namespace pennyweight {

/// What the most demanding stage takes in memory.
struct QuantizeMemory {
  int64_t costs = 0;     // of a batch's logits, mostly
  int64_t rounding = 0;  // see MemoryPlan::peak
  int64_t dwq = 0;       // the student and its optimizer, the teacher's part
  int64_t peak() const {
    return std::max({costs, rounding, dwq});
  }
};
QuantizeMemory plan_memory(
    const Model& model,
    const WidthPlan& widths,
    const StageSizes& sizes,
    int sequence_length,
    const std::optional<std::string>& limit);

}  // namespace pennyweight
