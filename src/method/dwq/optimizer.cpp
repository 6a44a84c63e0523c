// w = s (q - c) + b', c = (2^bits - 1) / 2: dL/ds = sum dw (q - c),
// dL/db' = sum dw. Adam on s and b'.
#include "method/dwq/optimizer.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/threads.h"
#include "ops/evaluated.h"
#include "ops/rounding/packed_rows.h"

namespace pennyweight {

namespace {

constexpr double kMeanDecay = 0.9;
constexpr double kClipAt = 2.0;
constexpr double kLastShare = 0.1;
constexpr double kBeta1 = 0.9;
constexpr double kBeta2 = 0.999;
constexpr double kEps = 1e-8;

// In memory of its own, since masters are written in place.
mx::array copied(const mx::array& x) {
  auto dense = evaluated(mx::contiguous(mx::astype(x, mx::float32)));
  return mx::array(dense.data<float>(), dense.shape(), mx::float32);
}

mx::array blank(const mx::array& like) {
  return copied(mx::zeros(like.shape(), mx::float32));
}

}  // namespace

double scheduled_rate(double peak, int64_t step, int64_t steps) {
  const auto warm_up = std::max<int64_t>(1, steps / 10);
  if (step < warm_up) {
    return peak * static_cast<double>(step + 1) / static_cast<double>(warm_up);
  }
  const double at = static_cast<double>(step - warm_up) /
      static_cast<double>(std::max<int64_t>(1, steps - warm_up));
  const double cosine = 0.5 * (1 + std::cos(std::numbers::pi * at));
  return peak * (kLastShare + (1 - kLastShare) * cosine);
}

double GradientClip::factor(double norm) {
  if (mean_ == 0) {
    mean_ = norm;
    return 1;
  }
  const double clipped = std::min(norm, kClipAt * mean_);
  mean_ = kMeanDecay * mean_ + (1 - kMeanDecay) * clipped;
  return norm > 0 ? clipped / norm : 1;
}

TrainedGroups::TrainedGroups(const ops::QuantizedWeight& start)
    : start_(start),
      middle_(0.5f * static_cast<float>((1 << start.bits) - 1)),
      scale_{start.scales, start.scales, start.scales},
      centre_(scale_) {
  reset();
}

void TrainedGroups::reset() {
  const auto scales = mx::astype(start_.scales, mx::float32);
  const auto centres =
      mx::astype(*start_.biases, mx::float32) + scales * mx::array(middle_);
  scale_ = {copied(scales), blank(scales), blank(scales)};
  centre_ = {copied(centres), blank(scales), blank(scales)};
}

double TrainedGroups::unit() const {
  auto mean = mx::mean(mx::abs(mx::astype(start_.scales, mx::float32)));
  return mean.item<float>();
}

ops::QuantizedWeight TrainedGroups::weight() const {
  // Some rows at a time: an embedding's have millions of groups.
  constexpr int kRows = 8192;
  auto weight = start_;
  weight.scales = unset(scale_.value.shape(), start_.scales.dtype());
  weight.biases = unset(scale_.value.shape(), start_.biases->dtype());
  const int rows = scale_.value.shape(0);
  const int groups = scale_.value.shape(1);
  for (int first = 0; first < rows; first += kRows) {
    const int end = std::min(rows, first + kRows);
    const auto part = [&](const mx::array& x) {
      return mx::slice(x, {first, 0}, {end, groups});
    };
    const auto scales = mx::astype(part(scale_.value), weight.scales.dtype());
    // Of the scale as it was rounded, so that the centre stays where it is.
    const auto biases = mx::astype(
        part(centre_.value) -
            mx::astype(scales, mx::float32) * mx::array(middle_),
        weight.biases->dtype());
    copy_rows(scales, first, weight.scales);
    copy_rows(biases, first, *weight.biases);
  }
  return weight;
}

void TrainedGroups::update(
    const ops::GroupGradients& gradients,
    const AdamStep& step) {
  auto by_scale = mx::contiguous(gradients.scales);
  auto by_bias = mx::contiguous(gradients.biases);
  mx::eval({by_scale, by_bias});
  const float* ds = by_scale.data<float>();
  const float* db = by_bias.data<float>();
  const double t = static_cast<double>(step.step);
  const auto first = static_cast<float>(1 / (1 - std::pow(kBeta1, t)));
  const auto second = static_cast<float>(1 / (1 - std::pow(kBeta2, t)));
  const auto rate = static_cast<float>(step.rate);
  const auto factor = static_cast<float>(step.factor);
  const auto move = [&](Parameter& parameter, size_t i, float g) {
    float& m = parameter.m.data<float>()[i];
    float& v = parameter.v.data<float>()[i];
    m += static_cast<float>(1 - kBeta1) * (g - m);
    v += static_cast<float>(1 - kBeta2) * (g * g - v);
    parameter.value.data<float>()[i] -=
        rate * m * first / (std::sqrt(v * second) + static_cast<float>(kEps));
  };
  kernels::parallel_ranges(
      static_cast<int64_t>(by_scale.size()),
      1 << 14,
      [&](auto begin, auto end) {
        for (auto i = static_cast<size_t>(begin); i < size_t(end); ++i) {
          move(scale_, i, factor * (ds[i] - middle_ * db[i]));
          move(centre_, i, factor * db[i]);
        }
      });
}

std::map<std::string, mx::array> TrainedGroups::state() const {
  return {
      {"scale", scale_.value},
      {"scale_m", scale_.m},
      {"scale_v", scale_.v},
      {"centre", centre_.value},
      {"centre_m", centre_.m},
      {"centre_v", centre_.v}};
}

void TrainedGroups::restore(const std::map<std::string, mx::array>& state) {
  const auto take = [&](const std::string& name) {
    return Parameter{
        copied(state.at(name)),
        copied(state.at(name + "_m")),
        copied(state.at(name + "_v"))};
  };
  scale_ = take("scale");
  centre_ = take("centre");
}

}  // namespace pennyweight
