#include "method/dwq/optimizer.h"

#include <gtest/gtest.h>
#include <mlx/mlx.h>

#include <cmath>
#include <random>

namespace pennyweight {

namespace {

constexpr int kDwqRows = 6;
constexpr int kDwqColumns = 128;
constexpr int kDwqGroup = 64;

ops::QuantizedWeight packed(int bits, mx::Dtype dtype) {
  mx::random::seed(7);
  const auto parts = mx::quantize(
      mx::astype(mx::random::normal({kDwqRows, kDwqColumns}), dtype),
      kDwqGroup,
      bits);
  return {parts[0], parts[1], parts[2], kDwqGroup, bits, "affine"};
}

ops::GroupGradients gradients(unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  const auto draw = [&] {
    std::vector<float> values(kDwqRows * kDwqColumns / kDwqGroup);
    for (float& value : values) {
      value = normal(random);
    }
    return mx::array(
        values.data(), {kDwqRows, kDwqColumns / kDwqGroup}, mx::float32);
  };
  return {draw(), draw()};
}

bool same_values(const mx::array& a, const mx::array& b) {
  return mx::array_equal(a, b).item<bool>();
}

class Trained : public ::testing::TestWithParam<int> {};

TEST_P(Trained, BeginsAsTheStart) {
  const auto start = packed(GetParam(), mx::bfloat16);
  const auto weight = TrainedGroups(start).weight();
  EXPECT_TRUE(same_values(weight.codes, start.codes));
  EXPECT_TRUE(same_values(weight.scales, start.scales));
  EXPECT_TRUE(same_values(*weight.biases, *start.biases));
}

// Adam by its paper on scale and centre, in float64.
TEST_P(Trained, StepsAreAdams) {
  const int bits = GetParam();
  const auto start = packed(bits, mx::float32);
  const double middle = 0.5 * ((1 << bits) - 1);
  TrainedGroups groups(start);
  const size_t count = kDwqRows * kDwqColumns / kDwqGroup;
  auto scales = mx::contiguous(start.scales);
  auto biases = mx::contiguous(*start.biases);
  mx::eval({scales, biases});
  double unit = 0;
  for (size_t i = 0; i < count; ++i) {
    unit += std::abs(scales.data<float>()[i]) / double(count);
  }
  EXPECT_NEAR(groups.unit(), unit, 1e-6 * unit);
  struct State {
    double value, m = 0, v = 0;
  };
  std::vector<State> scale, centre;
  for (size_t i = 0; i < count; ++i) {
    const double s = scales.data<float>()[i];
    scale.push_back({s});
    centre.push_back({biases.data<float>()[i] + middle * s});
  }
  for (int step = 1; step <= 5; ++step) {
    auto own = gradients(unsigned(step));
    groups.update(own, {.rate = 1e-2, .factor = 0.5, .step = step});
    mx::eval({own.scales, own.biases});
    const auto move = [&](State& state, double g) {
      state.m = 0.9 * state.m + 0.1 * g;
      state.v = 0.999 * state.v + 0.001 * g * g;
      const double m = state.m / (1 - std::pow(0.9, step));
      const double v = state.v / (1 - std::pow(0.999, step));
      state.value -= 1e-2 * m / (std::sqrt(v) + 1e-8);
    };
    for (size_t i = 0; i < count; ++i) {
      const double ds = 0.5 * own.scales.data<float>()[i];
      const double db = 0.5 * own.biases.data<float>()[i];
      move(scale[i], ds - middle * db);
      move(centre[i], db);
    }
  }
  const auto state = groups.state();
  for (size_t i = 0; i < count; ++i) {
    // Five sums in float32 of what the middle code of 63 has magnified.
    EXPECT_NEAR(state.at("scale").data<float>()[i], scale[i].value, 2e-6) << i;
    EXPECT_NEAR(
        state.at("centre").data<float>()[i],
        centre[i].value,
        2e-6 * std::max(1.0, std::abs(centre[i].value)))
        << i;
  }
  const auto weight = groups.weight();
  auto bias = *weight.biases;
  mx::eval(bias);
  EXPECT_NEAR(
      bias.data<float>()[0],
      centre[0].value - middle * scale[0].value,
      1e-5 * middle);
  groups.reset();
  EXPECT_TRUE(same_values(groups.weight().scales, start.scales));
}

TEST_P(Trained, GoesOnFromAState) {
  const auto start = packed(GetParam(), mx::bfloat16);
  TrainedGroups straight(start);
  TrainedGroups resumed(start);
  straight.update(gradients(1), {.rate = 1e-2, .step = 1});
  resumed.update(gradients(5), {.rate = 1e-1, .step = 1});
  resumed.restore(straight.state());
  for (auto* groups : {&straight, &resumed}) {
    groups->update(gradients(2), {.rate = 1e-2, .step = 2});
  }
  for (const auto& [name, value] : straight.state()) {
    EXPECT_TRUE(same_values(value, resumed.state().at(name))) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Bits, Trained, ::testing::Values(2, 3, 4, 5, 6));

TEST(Schedule, WarmsUpAndFollowsACosine) {
  EXPECT_DOUBLE_EQ(scheduled_rate(1, 0, 100), 0.1);
  EXPECT_DOUBLE_EQ(scheduled_rate(1, 9, 100), 1);
  EXPECT_DOUBLE_EQ(scheduled_rate(1, 10, 100), 1);
  EXPECT_NEAR(scheduled_rate(2, 55, 100), 2 * 0.55, 1e-12);
  EXPECT_NEAR(scheduled_rate(1, 99, 100), 0.1, 1e-3);
  EXPECT_DOUBLE_EQ(scheduled_rate(1, 0, 1), 1);
}

TEST(Clip, FollowsTheUsualNorm) {
  GradientClip clip;
  EXPECT_EQ(clip.factor(4), 1);
  EXPECT_EQ(clip.factor(8), 1);  // twice the mean
  const double mean = 0.9 * 4 + 0.1 * 8;
  EXPECT_DOUBLE_EQ(clip.mean(), mean);
  EXPECT_DOUBLE_EQ(clip.factor(100), 2 * mean / 100);
  EXPECT_DOUBLE_EQ(clip.mean(), 1.1 * mean);
  EXPECT_EQ(clip.factor(0), 1);
}

TEST(Trains, WhatHasFloatScalesAndFewerThanEightBits) {
  EXPECT_TRUE(is_trained(packed(6, mx::bfloat16)));
  EXPECT_FALSE(is_trained(packed(8, mx::bfloat16)));
  auto other = packed(4, mx::bfloat16);
  other.mode = "mxfp4";
  EXPECT_FALSE(is_trained(other));
}

}  // namespace

}  // namespace pennyweight
