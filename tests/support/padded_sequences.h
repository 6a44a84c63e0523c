#pragma once

#include <mlx/ops.h>

#include <cstdint>
#include <vector>

namespace pennyweight::testing {

/// Sequences of unequal lengths, so that batches of 14 tokens are padded.
inline const std::vector<std::vector<int32_t>> kPaddedSequences{
    {1, 2, 3, 4, 5, 6, 7},
    {9, 8, 7},
    {11, 12, 13, 14, 15},
    {3, 1, 4, 1, 5, 9, 2}};

/// The largest difference between two arrays of the same shape.
inline double difference(const mlx::core::array& a, const mlx::core::array& b) {
  namespace mx = mlx::core;
  return mx::max(mx::abs(mx::subtract(a, b))).item<float>();
}

}  // namespace pennyweight::testing
