#pragma once

#include <cstdint>
#include <optional>

#include "calibration/block_stream.h"

namespace pennyweight {

/// What a method may know of the inputs x of linears that share them, summed
/// over tokens; float32. x_full and r_full are input and residual stream of
/// the full-precision model at the same tokens.
struct InputStatistics {
  int64_t tokens = 0;
  mx::array hessian;                      // [in, in], sum of x x^T
  std::optional<mx::array> input_shift;   // [in, in], sum of (x_full - x) x^T
  std::optional<mx::array> output_shift;  // [hidden, in], sum of
                                          // (r_full - r) x^T, where the
                                          // output is added to r
  std::optional<mx::array> magnitudes;    // [in], sum of |x|
};

/// Moves `stream`, and `full` beside it if not null, to `step`, and sums over
/// the first `fit_batches` batches; the others, which are held out, only move.
/// Shifts are of `full`, whose inputs are first divided by `divisors` [in]
/// where given; magnitudes where asked for.
/// `in` is the inputs' width. Inputs are multiplied in their own type and
/// summed in float32; differences of residuals are rounded to that type first.
InputStatistics collect_statistics(
    BlockStream& stream,
    BlockStream* full,
    const std::vector<TokenBatch>& batches,
    size_t fit_batches,
    BlockStep step,
    int in,
    bool magnitudes = false,
    const std::optional<mx::array>& divisors = std::nullopt);

}  // namespace pennyweight
