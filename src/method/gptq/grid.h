#pragma once

#include <cstdint>

#include "kernels/kernels.h"
#include "method/gptq/lanes.h"

namespace pennyweight::gptq {

/// Rounds each value to what `dtype` can hold.
void round_to(kernels::DType dtype, float* values, int64_t count);

/// What a group's grids are made of.
struct GridFormat {
  kernels::QuantMode mode = kernels::QuantMode::affine;
  float top = 15;  // see Grids
  Levels levels = Levels::affine;
  kernels::DType dtype = kernels::DType::bf16;  // of affine scales and biases
};
GridFormat
make_grid_format(kernels::QuantMode mode, int bits, kernels::DType dtype);

/// Smallest and largest value of a group weight [size][kLanes], each [kLanes].
void extremes(const float* weight, int64_t size, float* low, float* high);

/// The grid that MLX makes of a group weight [size][kLanes]. Affine: from the
/// smallest to the largest, shifted so that the end with the larger magnitude
/// is hit exactly and 0 is a code; float32, not rounded to the output type.
/// Fp modes: the scale that brings the largest magnitude to the largest level.
void nearest_grid(
    const GridFormat& format,
    const float* weight,
    int64_t size,
    float* scale,
    float* bias);

/// Rounds affine scales and biases to the output type; the fp modes' scales
/// are ones that can be stored already.
void round_grids(
    const GridFormat& format,
    float* scales,
    float* biases,
    int64_t count);

/// Rounds a group weight [size][kLanes] to nearest on its grid: codes, and
/// weight less what they stand for, likewise.
void round_group(
    const GridFormat& format,
    const float* scale,
    const float* bias,
    const float* weight,
    int64_t size,
    float* codes,
    float* error);

/// The grid with the least sum h (w - s q - b)^2 of those tried, h [size]
/// being `importance`. Affine: MLX's, and its range cut by shares at either
/// end, the best then fitted to its codes by least squares a few times; all
/// rounded to the output type before their loss is taken. Fp modes: MLX's
/// scale and its neighbours among the scales that can be stored.
void search_grid(
    const GridFormat& format,
    const float* weight,
    const float* importance,
    int64_t size,
    float* scale,
    float* bias);

/// Codes of the fp modes: of a level, and of a scale.
uint8_t level_code(Levels levels, float level);
uint8_t scale_code(kernels::QuantMode mode, float scale);

}  // namespace pennyweight::gptq
