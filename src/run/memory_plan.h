#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "format/quant_plan.h"
#include "method/block_method.h"
#include "model/model.h"

namespace pennyweight {

/// What a walk will take, in bytes, estimated from above.
struct MemoryPlan {
  int64_t fixed = 0;        // peak without kept activations
  int64_t activations = 0;  // all that are kept between passes
  int64_t in_memory = 0;    // of these
  int64_t scratch = 0;      // of these, on disk
  int64_t output = 0;       // bytes of the quantized tensors
  int64_t disk = 0;         // scratch, finished blocks and the output
  int64_t peak() const {
    return fixed + in_memory;
  }
};

struct MemoryDemand {
  int64_t tokens = 0;        // of this process
  int64_t batch_tokens = 0;  // that go through together
  /// --memory-limit; absent: half of the machine's memory.
  std::optional<int64_t> limit;

  /// What may be kept of freed memory for the next results.
  int64_t freed_bytes() const;
};

/// invalid_argument when the limit is below what has to be in memory.
MemoryPlan make_memory_plan(
    const Model& model,
    const QuantPlan& plan,
    const BlockMethod& stage,
    const MemoryDemand& demand);

/// io Error when the file system of `folder` has less room than `bytes`, which
/// `what` names.
void require_disk(
    int64_t bytes,
    const std::filesystem::path& folder,
    const std::string& what);

/// One line for the user.
std::string describe(const MemoryPlan& plan);

}  // namespace pennyweight
