// A group's scale and bias: min over (s, b) of sum_i h_i (w_i - s q_i - b)^2,
// q_i = round((w_i - b) / s) clipped to 0 .. 2^bits - 1; h is the Hessian's
// diagonal. (D^2 of its factorization, what an error costs once the columns
// after it make up for it, gave a worse SmolLM2-135M: KL 0.074, not 0.057.)

#include "method/gptq_grid.h"

#include <algorithm>
#include <cmath>

namespace pennyweight::gptq {

namespace {

/// Smallest scale of mx::quantize.
constexpr float kLeastScale = 1e-7f;

void extremes(const float* weight, int64_t size, float* low, float* high) {
  std::copy_n(weight, kLanes, low);
  std::copy_n(weight, kLanes, high);
  for (int64_t i = 1; i < size; ++i) {
    for (int64_t l = 0; l < kLanes; ++l) {
      low[l] = std::min(low[l], weight[i * kLanes + l]);
      high[l] = std::max(high[l], weight[i * kLanes + l]);
    }
  }
}

/// The best grid so far, lane by lane.
class Search {
 public:
  Search(
      const float* weight,
      const float* importance,
      int64_t size,
      float top,
      kernels::DType dtype,
      float* scale,
      float* bias)
      : weight_(weight),
        importance_(importance),
        size_(size),
        top_(top),
        dtype_(dtype),
        scale_(scale),
        bias_(bias) {
    std::fill_n(loss_, kLanes, INFINITY);
  }

  /// Overwrites scale and bias by what the dtype makes of them.
  void offer(float* scale, float* bias) {
    round_to(dtype_, scale, kLanes);
    round_to(dtype_, bias, kLanes);
    GridSums sums;
    grid_sums(weight_, importance_, size_, scale, bias, top_, sums);
    for (int64_t l = 0; l < kLanes; ++l) {
      if (sums.loss[l] < loss_[l]) {
        loss_[l] = sums.loss[l];
        scale_[l] = scale[l];
        bias_[l] = bias[l];
      }
    }
  }

  /// Offers the least squares fit to the best grid's codes.
  void fit() {
    GridSums sums;
    grid_sums(weight_, importance_, size_, scale_, bias_, top_, sums);
    double total = 0;
    for (int64_t i = 0; i < size_; ++i) {
      total += importance_[i];
    }
    float scale[kLanes];
    float bias[kLanes];
    for (int64_t l = 0; l < kLanes; ++l) {
      const double qq = sums.qq[l], q = sums.q[l];
      const double determinant = qq * total - q * q;
      scale[l] = scale_[l];
      if (determinant > 1e-6 * qq * total) {
        scale[l] = float((sums.qw[l] * total - sums.w[l] * q) / determinant);
      }
    }
    round_to(dtype_, scale, kLanes);
    for (int64_t l = 0; l < kLanes; ++l) {
      // The bias makes up for the rounding of the scale.
      bias[l] = total > 0
          ? float((double(sums.w[l]) - scale[l] * double(sums.q[l])) / total)
          : bias_[l];
    }
    offer(scale, bias);
  }

 private:
  const float* weight_;
  const float* importance_;
  int64_t size_;
  float top_;
  kernels::DType dtype_;
  float* scale_;
  float* bias_;
  float loss_[kLanes];
};

}  // namespace

void round_to(kernels::DType dtype, float* values, int64_t count) {
  kernels::visit_type(dtype, [&](auto* type) {
    std::remove_pointer_t<decltype(type)> stored;
    for (int64_t i = 0; i < count; ++i) {
      kernels::from_float(values[i], stored);
      values[i] = kernels::to_float(stored);
    }
  });
}

void minmax_grid(
    const float* weight,
    int64_t size,
    float top,
    float* scale,
    float* bias) {
  float low[kLanes];
  float high[kLanes];
  extremes(weight, size, low, high);
  for (int64_t l = 0; l < kLanes; ++l) {
    const bool low_is_edge = std::fabs(low[l]) > std::fabs(high[l]);
    const float span = std::max((high[l] - low[l]) / top, kLeastScale);
    const float edge = low_is_edge ? low[l] : high[l];
    const float step = low_is_edge ? span : -span;
    const float codes = std::nearbyint(edge / step);
    scale[l] = codes != 0 ? edge / codes : step;
    bias[l] = codes != 0 ? edge : 0.0f;
  }
}

void search_grid(
    const float* weight,
    const float* importance,
    int64_t size,
    float top,
    kernels::DType dtype,
    float* scale,
    float* bias) {
  // Shares of half the range cut off at either end. Few levels gain by deeper
  // cuts, many levels by none.
  static constexpr float kCuts[] = {0, 0.05f, 0.1f, 0.15f, 0.2f, 0.3f, 0.4f};
  const int64_t cuts = top > 40 ? 3 : top > 10 ? 6 : 7;
  float low[kLanes];
  float high[kLanes];
  extremes(weight, size, low, high);
  Search search(weight, importance, size, top, dtype, scale, bias);
  float s[kLanes];
  float b[kLanes];
  minmax_grid(weight, size, top, s, b);
  std::copy_n(s, kLanes, scale);
  std::copy_n(b, kLanes, bias);
  search.offer(s, b);
  for (int64_t lower = 0; lower < cuts; ++lower) {
    for (int64_t upper = 0; upper < cuts; ++upper) {
      for (int64_t l = 0; l < kLanes; ++l) {
        const float range = std::max(high[l] - low[l], kLeastScale);
        const float kept = 1 - 0.5f * (kCuts[lower] + kCuts[upper]);
        s[l] = range * kept / top;
        b[l] = low[l] + 0.5f * kCuts[lower] * range;
      }
      search.offer(s, b);
    }
  }
  for (int fits = 0; fits < 4; ++fits) {
    search.fit();
  }
}

}  // namespace pennyweight::gptq
