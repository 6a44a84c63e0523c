#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pennyweight {

/// "4GB", "1.5GiB", "800M", "500000000" to bytes: kB, MB, GB, TB (and K, M, G,
/// T) count by 1000, KiB, MiB, GiB, TiB by 1024. invalid_argument, naming
/// `option`, for anything else and for what is not above zero.
int64_t parse_bytes(const std::string& text, const std::string& option);

/// Numbers as they lie in memory, and back; what is left of bytes is dropped.
template <class T>
std::string bytes_of(std::span<const T> values) {
  return {
      reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

template <class T>
std::vector<T> values_of(std::string_view bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!values.empty()) {
    std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  }
  return values;
}

}  // namespace pennyweight
