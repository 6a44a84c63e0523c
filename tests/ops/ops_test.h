#pragma once

#include <gtest/gtest.h>
#include <mlx/mlx.h>

#include <cmath>
#include <string>
#include <utility>

#include "kernels/dispatch.h"
#include "ops/expert_linear.h"
#include "ops/expert_rows.h"
#include "ops/gated_delta.h"
#include "ops/head/tile_ops.h"
#include "ops/primitive.h"

namespace pennyweight::ops {

/// Ops made of MLX's own, as on a GPU: what the CPU's are compared with.
namespace mlx_path {

struct FallbacksOnly {
  FallbacksOnly() {
    kernels::override_choice(kernels::Choice::mlx);
  }
  ~FallbacksOnly() {
    kernels::override_choice({});
  }
};

#define BY_FALLBACK(name)                          \
  template <class... Args>                         \
  auto name(Args&&... args) {                      \
    const FallbacksOnly guard;                     \
    return ops::name(std::forward<Args>(args)...); \
  }
BY_FALLBACK(attention)
BY_FALLBACK(causal_conv)
BY_FALLBACK(clipped_glu)
BY_FALLBACK(dequantize)
BY_FALLBACK(expert_linear)
BY_FALLBACK(fisher_gradient)
BY_FALLBACK(gated_delta)
BY_FALLBACK(geglu)
BY_FALLBACK(kl_gradient)
BY_FALLBACK(linear)
BY_FALLBACK(mix_slots)
BY_FALLBACK(rms_norm)
BY_FALLBACK(rope)
BY_FALLBACK(rows_of_slots)
BY_FALLBACK(score_finish)
BY_FALLBACK(score_linear)
BY_FALLBACK(softmax)
BY_FALLBACK(ssd_scan)
BY_FALLBACK(swiglu)
#undef BY_FALLBACK

inline mx::array head_logits(const HeadRows& head) {
  return cap_logits(
      linear(head.x, head.weight, head.bias, mx::float32), head.cap);
}

}  // namespace mlx_path

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

/// Roundings that MLX's own ops have beyond those of kernels, where they are
/// what runs: on a CPU they round each of `count` results on the way to the
/// type, which kernels keep in float32. Roundings add up as their root.
inline double mlx_roundings(int count) {
  return uses_kernels() ? 0 : std::sqrt(double(count));
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

class Ops : public ::testing::TestWithParam<mx::Dtype> {
 protected:
  void SetUp() override {
    mx::set_default_device(mx::Device::cpu);
  }
};

/// Each test of `name` once per type.
#define INSTANTIATE_OPS_TEST(name)                               \
  INSTANTIATE_TEST_SUITE_P(                                      \
      Types,                                                     \
      name,                                                      \
      ::testing::Values(mx::float32, mx::bfloat16, mx::float16), \
      [](const auto& type) {                                     \
        return std::string(                                      \
            type.param == mx::float32        ? "f32"             \
                : type.param == mx::bfloat16 ? "bf16"            \
                                             : "f16");           \
      })

}  // namespace pennyweight::ops
