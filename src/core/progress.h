#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "core/error.h"

namespace pennyweight {

/// One report of a long task. `stage` is a short stable word ("quantize"),
/// `done` of `total` counts `unit`s ("modules", "tokens", "bytes"); total 0
/// means unknown. A message without counts has an empty unit.
struct ProgressEvent {
  std::string stage;
  int64_t done = 0;
  int64_t total = 0;
  std::string unit{};
  std::string message{};
  /// Something was skipped, clamped or fell back: always shown.
  bool warning = false;
  /// Seconds to the end of the stage, where they do not go with the count.
  std::optional<double> left{};
};

/// Returns false to cancel.
using ProgressFn = std::function<bool(const ProgressEvent&)>;

/// Calls `progress` if set; throws a cancelled Error when it returns false.
inline void report(const ProgressFn& progress, const ProgressEvent& event) {
  if (progress && !progress(event)) {
    throw Error(ErrorCode::cancelled, event.stage, "stopped by the user");
  }
}

inline void warn(
    const ProgressFn& progress,
    const std::string& stage,
    const std::string& message) {
  report(progress, {stage, 0, 0, "", message, true});
}

}  // namespace pennyweight
