#pragma once

// The C ABI of the Rust crate in rust/. Every entry that can fail returns 0, or
// ErrorCode + 1 and then writes an owned message to `error`; no panic crosses
// it. Rooms declare the entries that they use next to the owners of their
// handles (text/rust_text.h); this header has what all share.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "core/error.h"

extern "C" {

/// Bytes that Rust owns; give back with pw_bytes_free.
struct PwBytes {
  uint8_t* data;
  size_t size;
  size_t capacity;
};

void pw_bytes_free(PwBytes bytes);

/// `end` is called, on any thread, where the system refuses the crate memory;
/// it must not return. Without it the crate aborts the process.
void pw_on_refused_memory(void (*end)());

}  // extern "C"

namespace pennyweight {

/// Owner of a PwBytes; out() is what to pass to an entry.
class RustBytes {
 public:
  RustBytes() = default;
  ~RustBytes() {
    pw_bytes_free(bytes_);
  }
  RustBytes(RustBytes&& other) noexcept
      : bytes_(std::exchange(other.bytes_, PwBytes{nullptr, 0, 0})) {}
  RustBytes& operator=(RustBytes&&) = delete;

  PwBytes* out() {
    pw_bytes_free(std::exchange(bytes_, PwBytes{nullptr, 0, 0}));
    return &bytes_;
  }
  std::string_view view() const {
    return {reinterpret_cast<const char*>(bytes_.data), bytes_.size};
  }
  size_t size() const {
    return bytes_.size;
  }

 private:
  PwBytes bytes_{nullptr, 0, 0};
};

inline const uint8_t* rust_data(std::string_view text) {
  return reinterpret_cast<const uint8_t*>(text.data());
}

/// Throws the Error that a non-zero status stands for: `[where] context:
/// message`, with `context` (a path, say) left out when empty.
inline void check_rust(
    int32_t status,
    const RustBytes& error,
    std::string_view where,
    std::string_view context = {}) {
  if (status == 0) {
    return;
  }
  std::string text;
  if (!context.empty()) {
    text = one_line(context) + ": ";
  }
  text += one_line(error.view(), 600);
  throw Error(static_cast<ErrorCode>(status - 1), where, text);
}

/// What `call(out, error)`, an entry that gives bytes, answers; Errors as
/// check_rust's.
template <class Call>
RustBytes
ask_rust(std::string_view where, std::string_view context, const Call& call) {
  RustBytes out;
  RustBytes error;
  check_rust(call(out.out(), error.out()), error, where, context);
  return out;
}

}  // namespace pennyweight
