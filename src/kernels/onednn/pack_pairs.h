#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/types.h"

namespace pennyweight::kernels::onednn {

/// Two rows of a packed weight in bfloat16, [width, 2]: `count` values of each,
/// side by side, then zeros. A row that is null is zeros.
inline void interleave(
    const BFloat16* first,
    const BFloat16* second,
    int64_t count,
    int64_t width,
    BFloat16* to) {
  if (count != width || first == nullptr) {
    std::memset(to, 0, size_t(2 * width) * sizeof(BFloat16));
  }
  if (first == nullptr) {
    return;
  }
  if (second == nullptr) {
    for (int64_t i = 0; i < count; ++i) {
      to[2 * i] = first[i];
      to[2 * i + 1] = {0};
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    to[2 * i] = first[i];
    to[2 * i + 1] = second[i];
  }
}

}  // namespace pennyweight::kernels::onednn
