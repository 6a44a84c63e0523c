#pragma once

#include <mlx/array.h>

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <vector>

#include "core/files/descriptor.h"
#include "ops/ops.h"

namespace pennyweight {

/// Bytes that several stores may still hold in memory together.
struct MemoryBudget {
  int64_t left = 0;

  static MemoryBudget unlimited() {
    return {std::numeric_limits<int64_t>::max()};
  }
};

/// Activations of calibration batches between two steps of the block walk. In
/// memory up to a budget; the slots past it live in a scratch file.
class ActivationStore {
 public:
  /// `budget` must outlive this; `folder` takes the scratch file, which is
  /// made when first needed.
  ActivationStore(
      size_t slots,
      MemoryBudget& budget,
      std::filesystem::path folder);
  ~ActivationStore();
  ActivationStore(const ActivationStore&) = delete;
  ActivationStore& operator=(const ActivationStore&) = delete;

  size_t size() const {
    return slots_.size();
  }
  /// Evaluates `value` and keeps it. A slot's dtype is that of its first value
  /// (invalid_argument otherwise); one whose size changes is made anew. io
  /// Error on a full disk.
  void put(size_t slot, const mlx::core::array& value);
  mlx::core::array get(size_t slot) const;
  /// Gives everything back.
  void clear();

  int64_t scratch_bytes() const {
    return scratch_bytes_;
  }

 private:
  struct Slot {
    std::optional<mlx::core::array> memory;
    mlx::core::Shape shape;
    mlx::core::Dtype dtype = mlx::core::float32;
    int64_t offset = -1;  // in the scratch file; -1: not there
    int64_t room = 0;     // bytes there
  };

  void make_room(Slot& slot, int64_t bytes);

  std::vector<Slot> slots_;
  MemoryBudget* budget_;
  ScratchFile file_;
  int64_t memory_bytes_ = 0;
  int64_t scratch_bytes_ = 0;
};

}  // namespace pennyweight
