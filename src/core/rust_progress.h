#pragma once

// Progress from the Rust side: what an entry calls, and where exceptions wait,
// since they can't cross it.

#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>

#include "core/progress.h"

namespace pennyweight {

struct RustListener {
  const ProgressFn& progress;
  std::exception_ptr thrown{};

  void rethrow() const {
    if (thrown) {
      std::rethrow_exception(thrown);
    }
  }
};

/// What Rust calls, with a RustListener as context: a file's name, bytes done
/// of all. False cancels.
using RustProgress =
    bool (*)(void*, const uint8_t*, size_t, uint64_t, uint64_t);

inline bool rust_report(
    void* context,
    const char* stage,
    const uint8_t* name,
    size_t size,
    uint64_t done,
    uint64_t total) {
  auto* listener = static_cast<RustListener*>(context);
  try {
    std::string file(reinterpret_cast<const char*>(name), size);
    report(
        listener->progress,
        {stage,
         static_cast<int64_t>(done),
         static_cast<int64_t>(total),
         "bytes",
         file});
    return true;
  } catch (...) {
    listener->thrown = std::current_exception();
    return false;
  }
}

}  // namespace pennyweight
