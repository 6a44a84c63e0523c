#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace pennyweight {

/// XXH3 of 128 bits: against mistakes and damage, not against attackers. One
/// thread hashes some 10 GB/s, more than a disk gives.
class Hash {
 public:
  Hash();
  ~Hash();
  Hash(Hash&&) noexcept;
  Hash& operator=(Hash&&) noexcept;

  void add(const void* data, size_t bytes);
  /// The text and its end, so that neighbours don't run together.
  void add(const std::string& text) {
    add(text.c_str(), text.size() + 1);
  }
  /// Of what was added so far: 32 hex digits.
  std::string text() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace pennyweight
