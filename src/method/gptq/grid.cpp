// A group's scale and bias: min over (s, b) of sum_i h_i (w_i - s q_i - b)^2,
// q_i = round((w_i - b) / s) clipped to 0 .. 2^bits - 1; h is the Hessian's
// diagonal. (D^2 of its factorization, what an error costs once the columns
// after it make up for it, gave a worse SmolLM2-135M: KL 0.074, not 0.057.)

#include "method/gptq/grid.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/quant_codes.h"

namespace pennyweight::gptq {

namespace {

/// Smallest scale of mx::quantize.
constexpr float kLeastScale = 1e-7f;

/// The e4m3 code nearest to x >= 0, of a tie the even one; at most 448.
uint8_t nearest_e4m3(float x) {
  const float* values = kernels::e4m3_values();
  const float* above = std::lower_bound(values, values + 0x7f, x);
  int code = int(above - values);
  if (code == 0x7f) {
    return 0x7e;
  }
  if (code > 0) {
    const float low = x - values[code - 1];
    const float high = values[code] - x;
    code -= low < high || (low == high && code % 2 == 1);
  }
  return uint8_t(code);
}

const float* scale_values(kernels::QuantMode mode) {
  return mode == kernels::QuantMode::nvfp4 ? kernels::e4m3_values()
                                           : kernels::e8m0_values();
}

/// The best grid so far, lane by lane.
class Search {
 public:
  Search(
      const GridFormat& format,
      const GroupWeights& weights,
      const LaneGrid& best)
      : format_(format), weights_(weights), best_(best) {
    std::fill_n(loss_, kLanes, INFINITY);
  }

  /// Overwrites scale and bias by what the dtype makes of them.
  void offer(const LaneGrid& grid) {
    round_grids(format_, grid);
    const auto sums = sum(grid);
    for (int64_t l = 0; l < kLanes; ++l) {
      if (sums.loss[l] < loss_[l]) {
        loss_[l] = sums.loss[l];
        best_.scale[l] = grid.scale[l];
        best_.bias[l] = grid.bias[l];
      }
    }
  }

  /// Offers the least squares fit to the best grid's codes.
  void fit() {
    const auto sums = sum(best_);
    double total = 0;
    for (int64_t i = 0; i < weights_.size; ++i) {
      total += weights_.importance[i];
    }
    float scale[kLanes];
    float bias[kLanes];
    for (int64_t l = 0; l < kLanes; ++l) {
      const double qq = sums.qq[l], q = sums.q[l];
      const double determinant = qq * total - q * q;
      scale[l] = best_.scale[l];
      if (determinant > 1e-6 * qq * total) {
        scale[l] = float((sums.qw[l] * total - sums.w[l] * q) / determinant);
      }
    }
    round_to(format_.dtype, scale, kLanes);
    for (int64_t l = 0; l < kLanes; ++l) {
      // The bias makes up for the rounding of the scale.
      bias[l] = total > 0
          ? float((double(sums.w[l]) - scale[l] * double(sums.q[l])) / total)
          : best_.bias[l];
    }
    offer({scale, bias});
  }

 private:
  GridSums sum(const LaneGrid& grid) const {
    return grid_sums(
        weights_, {grid.scale, grid.bias, format_.top, format_.levels});
  }

  const GridFormat& format_;
  const GroupWeights& weights_;
  LaneGrid best_;
  float loss_[kLanes];
};

void nearest_affine(
    const GroupWeights& weights,
    float top,
    const LaneGrid& grid) {
  float low[kLanes];
  float high[kLanes];
  extremes(weights, low, high);
  for (int64_t l = 0; l < kLanes; ++l) {
    const bool low_is_edge = std::fabs(low[l]) > std::fabs(high[l]);
    const float span = std::max((high[l] - low[l]) / top, kLeastScale);
    const float edge = low_is_edge ? low[l] : high[l];
    const float step = low_is_edge ? span : -span;
    const float codes = std::nearbyint(edge / step);
    grid.scale[l] = codes != 0 ? edge / codes : step;
    grid.bias[l] = codes != 0 ? edge : 0.0f;
  }
}

void search_affine(
    const GridFormat& format,
    const GroupWeights& weights,
    const LaneGrid& grid) {
  // Shares of half the range cut off at either end. Few levels gain by deeper
  // cuts, many levels by none.
  static constexpr float kCuts[] = {0, 0.05f, 0.1f, 0.15f, 0.2f, 0.3f, 0.4f};
  const float top = format.top;
  const int64_t cuts = top > 40 ? 3 : top > 10 ? 6 : 7;
  float low[kLanes];
  float high[kLanes];
  extremes(weights, low, high);
  Search search(format, weights, grid);
  float s[kLanes];
  float b[kLanes];
  nearest_affine(weights, top, {s, b});
  std::copy_n(s, kLanes, grid.scale);
  std::copy_n(b, kLanes, grid.bias);
  search.offer({s, b});
  for (int64_t lower = 0; lower < cuts; ++lower) {
    for (int64_t upper = 0; upper < cuts; ++upper) {
      for (int64_t l = 0; l < kLanes; ++l) {
        const float range = std::max(high[l] - low[l], kLeastScale);
        const float kept = 1 - 0.5f * (kCuts[lower] + kCuts[upper]);
        s[l] = range * kept / top;
        b[l] = low[l] + 0.5f * kCuts[lower] * range;
      }
      search.offer({s, b});
    }
  }
  for (int fits = 0; fits < 4; ++fits) {
    search.fit();
  }
}

/// Codes of the scales that MLX takes: the power of two that clips nothing,
/// or the e4m3 number nearest to it.
void nearest_codes(
    const GridFormat& format,
    const GroupWeights& weights,
    int* codes) {
  float low[kLanes];
  float high[kLanes];
  extremes(weights, low, high);
  for (int64_t l = 0; l < kLanes; ++l) {
    const float ratio = std::max(-low[l], high[l]) / format.top;
    if (format.mode == kernels::QuantMode::nvfp4) {
      codes[l] = nearest_e4m3(ratio);
      continue;
    }
    int exponent = 0;
    const float fraction = std::frexp(ratio, &exponent);
    codes[l] = std::clamp(exponent - (fraction == 0.5f) + 127, 0, 254);
  }
}

void search_fp(
    const GridFormat& format,
    const GroupWeights& weights,
    const LaneGrid& grid) {
  int codes[kLanes];
  nearest_codes(format, weights, codes);
  const bool fine = format.mode == kernels::QuantMode::nvfp4;
  const float* values = scale_values(format.mode);
  const int top_code = fine ? 0x7e : 254;
  Search search(format, weights, grid);
  // MLX's own first, which wins ties; then down, which clips, and up.
  const int down = fine ? -10 : -3;
  const int up = fine ? 4 : 1;
  float s[kLanes];
  float b[kLanes] = {};
  for (int turn = 0; turn <= up - down; ++turn) {
    const int offset = turn <= -down ? -turn : turn + down;
    for (int64_t l = 0; l < kLanes; ++l) {
      s[l] = values[std::clamp(codes[l] + offset, 0, top_code)];
    }
    search.offer({s, b});
  }
}

}  // namespace

void extremes(const GroupWeights& weights, float* low, float* high) {
  std::copy_n(weights.values, kLanes, low);
  std::copy_n(weights.values, kLanes, high);
  for (int64_t i = 1; i < weights.size; ++i) {
    for (int64_t l = 0; l < kLanes; ++l) {
      low[l] = std::min(low[l], weights.values[i * kLanes + l]);
      high[l] = std::max(high[l], weights.values[i * kLanes + l]);
    }
  }
}

void round_to(kernels::DType dtype, float* values, int64_t count) {
  kernels::visit_type(dtype, [&](auto* type) {
    std::remove_pointer_t<decltype(type)> stored;
    for (int64_t i = 0; i < count; ++i) {
      kernels::from_float(values[i], stored);
      values[i] = kernels::to_float(stored);
    }
  });
}

GridFormat
make_grid_format(kernels::QuantMode mode, int bits, kernels::DType dtype) {
  switch (mode) {
    case kernels::QuantMode::mxfp4:
    case kernels::QuantMode::nvfp4:
      return {mode, 6.0f, Levels::e2m1, dtype};
    case kernels::QuantMode::mxfp8:
      return {mode, 448.0f, Levels::e4m3, dtype};
    default:
      return {mode, float((1 << bits) - 1), Levels::affine, dtype};
  }
}

void nearest_grid(
    const GridFormat& format,
    const GroupWeights& weights,
    const LaneGrid& grid) {
  if (format.levels == Levels::affine) {
    nearest_affine(weights, format.top, grid);
    return;
  }
  int codes[kLanes];
  nearest_codes(format, weights, codes);
  for (int64_t l = 0; l < kLanes; ++l) {
    grid.scale[l] = scale_values(format.mode)[codes[l]];
    grid.bias[l] = 0;
  }
}

void round_group(
    const GridFormat& format,
    const LaneGrid& grid,
    const GroupWeights& weights,
    float* codes,
    float* error) {
  const int64_t group = 0;
  float moved[kLanes];
  // Without feedback every column is its own block.
  for (int64_t i = 0; i < weights.size; ++i) {
    const float* target = weights.values + i * kLanes;
    std::copy_n(target, kLanes, moved);
    round_block(
        {.columns = 1,
         .feedback = nullptr,
         .feedback_stride = 0,
         .groups = &group,
         .grids = {grid.scale, grid.bias, format.top, format.levels},
         .target = target,
         .moved = moved,
         .codes = codes + i * kLanes,
         .error = error + i * kLanes});
  }
}

void search_grid(
    const GridFormat& format,
    const GroupWeights& weights,
    const LaneGrid& grid) {
  const bool affine = format.levels == Levels::affine;
  (affine ? search_affine : search_fp)(format, weights, grid);
}

void round_grids(
    const GridFormat& format,
    const LaneGrid& grids,
    int64_t count) {
  if (format.levels == Levels::affine) {
    round_to(format.dtype, grids.scale, count);
    round_to(format.dtype, grids.bias, count);
  }
}

uint8_t level_code(Levels levels, float level) {
  if (levels == Levels::affine) {
    return uint8_t(level);
  }
  const uint8_t sign = level < 0 ? 1 : 0;
  const float size = std::fabs(level);
  if (levels == Levels::e4m3) {
    return uint8_t(nearest_e4m3(size) | sign << 7);
  }
  const float* values = kernels::e2m1_values();
  return uint8_t(
      (std::lower_bound(values, values + 8, size) - values) | sign << 3);
}

uint8_t scale_code(kernels::QuantMode mode, float scale) {
  return mode == kernels::QuantMode::nvfp4
      ? nearest_e4m3(scale)
      : uint8_t((std::bit_cast<uint32_t>(scale) >> 23) & 0xff);
}

}  // namespace pennyweight::gptq
