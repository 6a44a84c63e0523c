#pragma once

#include <cstdint>

#include "kernels/types.h"
#include "method/gptq_lanes.h"

namespace pennyweight::gptq {

/// Rounds each value to what `dtype` can hold.
void round_to(kernels::DType dtype, float* values, int64_t count);

/// The affine grid that MLX makes of a group weight [size][kLanes]: from the
/// smallest to the largest, shifted so that the end with the larger magnitude
/// is hit exactly and 0 is a code. Float32, not rounded to an output type.
void minmax_grid(
    const float* weight,
    int64_t size,
    float top,
    float* scale,
    float* bias);

/// The grid with the least sum h (w - s q - b)^2 of those tried: MLX's, and
/// its range cut by shares at either end, the best then fitted to its codes
/// by least squares a few times. Scales and biases are rounded to `dtype`
/// before their loss is taken. importance: h [size].
void search_grid(
    const float* weight,
    const float* importance,
    int64_t size,
    float top,
    kernels::DType dtype,
    float* scale,
    float* bias);

}  // namespace pennyweight::gptq
