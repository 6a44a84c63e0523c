#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>

namespace pennyweight {

/// FNV-1a of 64 bits: against mistakes and damage, not against attackers.
class Hash {
 public:
  void add(const void* data, size_t bytes) {
    const auto* p = static_cast<const unsigned char*>(data);
    for (size_t i = 0; i < bytes; ++i) {
      value_ = (value_ ^ p[i]) * 0x100000001b3u;
    }
  }
  /// The text and its end, so that neighbours don't run together.
  void add(const std::string& text) {
    add(text.c_str(), text.size() + 1);
  }
  /// 16 hex digits.
  std::string text() const {
    char digits[17];
    std::snprintf(
        digits,
        sizeof(digits),
        "%016llx",
        static_cast<unsigned long long>(value_));
    return digits;
  }

 private:
  uint64_t value_ = 0xcbf29ce484222325u;
};

}  // namespace pennyweight
