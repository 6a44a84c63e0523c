#pragma once

#include <mlx/dtype.h>

#include <cstdint>

#include "format/quant_spec.h"

namespace pennyweight {

namespace mx = mlx::core;

/// Where the rounded weights go; row-major, as in ops::QuantizedWeight.
struct RoundedWeights {
  uint8_t* codes = nullptr;
  void* scales = nullptr;  // of the weights' type; uint8 for the fp modes
  void* biases = nullptr;  // of the weights' type; affine only
};

/// Rounds `count` weights of `dtype` (float32, bfloat16, float16), a whole
/// number of groups of `spec`, to nearest, on all threads. Bit for bit what
/// mx::quantize gives on a CPU. Values must be finite.
void round_to_nearest(
    const void* weights,
    mx::Dtype dtype,
    int64_t count,
    const QuantSpec& spec,
    const RoundedWeights& out);

}  // namespace pennyweight
