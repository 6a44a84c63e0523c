#pragma once

#include <gtest/gtest.h>
#include <mlx/mlx.h>

#include <string>

#include "ops/mlx_path.h"
#include "ops/ops.h"

namespace pennyweight::ops {

inline double unit(mx::Dtype dtype) {
  return dtype == mx::float32 ? 0x1p-24
      : dtype == mx::bfloat16 ? 0x1p-8
                              : 0x1p-11;
}

/// Both sides sum `depth` terms in float32, in orders of their own, each of
/// whose additions may cost half a unit of what is summed so far: of the
/// largest expected magnitude. Ours is then rounded to `type`, as some of what
/// went in was: `roundings` in all.
inline void expect_close(
    mx::array actual,
    mx::array expected,
    mx::Dtype type,
    double roundings,
    int depth) {
  ASSERT_EQ(actual.shape(), expected.shape());
  actual = mx::astype(actual, mx::float32);
  expected = mx::astype(expected, mx::float32);
  const float largest = mx::max(mx::abs(expected)).item<float>();
  const float error =
      mx::max(mx::abs(mx::subtract(actual, expected))).item<float>();
  const double relative = roundings * unit(type) + 2 * depth * 0x1p-24;
  EXPECT_LE(error, relative * largest);
}

inline mx::array
random(const mx::Shape& shape, mx::Dtype dtype, int seed, float scale = 1) {
  return mx::astype(
      mx::multiply(
          mx::random::normal(shape, mx::random::key(uint64_t(seed))),
          mx::array(scale)),
      dtype);
}

inline mx::array wide(const mx::array& x) {
  return mx::astype(x, mx::float32);
}

inline constexpr int kDepth = 96;

class Ops : public testing::TestWithParam<mx::Dtype> {
 protected:
  void SetUp() override {
    mx::set_default_device(mx::Device::cpu);
  }
};

/// Each test of `name` once per type.
#define INSTANTIATE_OPS_TEST(name)                             \
  INSTANTIATE_TEST_SUITE_P(                                    \
      Types,                                                   \
      name,                                                    \
      testing::Values(mx::float32, mx::bfloat16, mx::float16), \
      [](const auto& type) {                                   \
        return std::string(                                    \
            type.param == mx::float32        ? "f32"           \
                : type.param == mx::bfloat16 ? "bf16"          \
                                             : "f16");         \
      })

}  // namespace pennyweight::ops
