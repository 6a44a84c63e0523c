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

/// Scale and bias of each lane, both [kLanes].
struct LaneGrid {
  float* scale;
  float* bias;
};

/// Smallest and largest value of a group, each [kLanes].
void extremes(const GroupWeights& weights, float* low, float* high);

/// The grid that MLX makes of a group. Affine: from the smallest to the
/// largest, shifted so that the end with the larger magnitude is hit exactly
/// and 0 is a code; float32, not rounded to the output type. Fp modes: the
/// scale that brings the largest magnitude to the largest level.
void nearest_grid(
    const GridFormat& format,
    const GroupWeights& weights,
    const LaneGrid& grid);

/// Rounds affine scales and biases, `count` of each, to the output type; the fp
/// modes' scales are ones that can be stored already.
void round_grids(
    const GridFormat& format,
    const LaneGrid& grids,
    int64_t count = kLanes);

/// Rounds a group to nearest on its grid: codes, and the values less what they
/// stand for, likewise.
void round_group(
    const GridFormat& format,
    const LaneGrid& grid,
    const GroupWeights& weights,
    float* codes,
    float* error);

/// The grid with the least sum h (w - s q - b)^2 of those tried. Affine: MLX's,
/// and its range cut by shares at either end, the best then fitted to its codes
/// by least squares a few times; all rounded to the output type before their
/// loss is taken. Fp modes: MLX's scale and its neighbours among the scales
/// that can be stored.
void search_grid(
    const GridFormat& format,
    const GroupWeights& weights,
    const LaneGrid& grid);

/// Codes of the fp modes: of a level, and of a scale.
uint8_t level_code(Levels levels, float level);
uint8_t scale_code(kernels::QuantMode mode, float scale);

}  // namespace pennyweight::gptq
