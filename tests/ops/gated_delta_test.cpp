#include "ops/gated_delta.h"

#include "core/error.h"
#include "ops/ops_test.h"

// The primitives against the same made of MLX's ops; the kernels' own tests
// compare them with float64.

namespace pennyweight::ops {

namespace {

class DeltaOps : public Ops {};

TEST_P(DeltaOps, EqualMlx) {
  const auto type = GetParam();
  const int length = 13;
  // Slices of one wider array, as the models make them.
  const auto both = random({2, length, 4, 24}, type, 1);
  const auto part = [&](int first) {
    return mx::slice(both, {0, 0, 0, first}, {2, length, 4, first + 12});
  };
  const auto [q, k] = normalize_keys(part(0), part(12));
  const auto v = random({2, length, 8, 10}, type, 2);
  const auto gates = delta_gates(
      random({2, length, 8}, type, 3),
      random({2, length, 8}, type, 4),
      random({8}, mx::float32, 5),
      random({8}, type, 6));
  // A step is a sum of 12 terms, and there are 13.
  expect_close(
      gated_delta(q, k, v, gates.g, gates.beta),
      mlx_path::gated_delta(wide(q), wide(k), wide(v), gates.g, gates.beta),
      type,
      1,
      length * 12);
  const auto x = random({2, length, 40}, type, 7);
  const auto weight = random({40, 4}, type, 8);
  expect_close(
      causal_conv(x, weight, true),
      mlx_path::causal_conv(wide(x), wide(weight), true),
      type,
      1,
      8);
}

TEST_P(DeltaOps, GradientsEqualMlx) {
  const auto type = GetParam();
  const int length = 70;  // three chunks, the last of a few tokens
  const auto [q, k] = normalize_keys(
      random({2, length, 2, 20}, type, 1), random({2, length, 2, 20}, type, 2));
  const auto v = random({2, length, 6, 10}, type, 3);
  const auto gates = delta_gates(
      random({2, length, 6}, type, 4),
      random({2, length, 6}, type, 5),
      random({6}, mx::float32, 6),
      random({6}, type, 7));
  const auto dy = random({2, length, 6, 10}, type, 8);
  const auto ours = mx::vjp(
      [](const std::vector<mx::array>& x) {
        return std::vector<mx::array>{
            gated_delta(x[0], x[1], x[2], x[3], x[4])};
      },
      {q, k, v, gates.g, gates.beta},
      {dy});
  const auto theirs = mx::vjp(
      [](const std::vector<mx::array>& x) {
        return std::vector<mx::array>{
            mlx_path::gated_delta(x[0], x[1], x[2], x[3], x[4])};
      },
      {wide(q), wide(k), wide(v), gates.g, gates.beta},
      {wide(dy)});
  for (size_t i = 0; i < 5; ++i) {
    const auto kind = i < 3 ? type : mx::float32;
    expect_close(ours.second[i], theirs.second[i], kind, 1, length * 20);
  }
  const auto x = random({2, length, 40}, type, 9);
  const auto weight = random({40, 4}, type, 10);
  const auto dsum = random({2, length, 40}, type, 11);
  for (const bool silu : {false, true}) {
    const auto gradient = [&](auto&& conv, const auto& at, const auto& by) {
      return mx::vjp(
                 [&](const std::vector<mx::array>& in) {
                   return std::vector<mx::array>{conv(in[0])};
                 },
                 {at},
                 {by})
          .second[0];
    };
    expect_close(
        gradient(
            [&](const auto& in) { return causal_conv(in, weight, silu); },
            x,
            dsum),
        gradient(
            [&](const auto& in) {
              return mlx_path::causal_conv(in, wide(weight), silu);
            },
            wide(x),
            wide(dsum)),
        type,
        4,
        8);
  }
}

INSTANTIATE_OPS_TEST(DeltaOps);

TEST(DeltaOpsErrors, ShapesThatDoNotFit) {
  const auto q = mx::zeros({1, 3, 2, 8});
  const auto v = mx::zeros({1, 3, 4, 6});
  const auto gates = mx::zeros({1, 3, 4});
  EXPECT_THROW(gated_delta(q, mx::zeros({1, 3, 2, 7}), v, gates, gates), Error);
  EXPECT_THROW(gated_delta(q, q, mx::zeros({1, 3, 3, 6}), gates, gates), Error);
  EXPECT_THROW(gated_delta(q, q, v, mx::zeros({1, 3, 3}), gates), Error);
  EXPECT_THROW(causal_conv(mx::zeros({1, 3, 5}), mx::zeros({4, 2})), Error);
}

}  // namespace

}  // namespace pennyweight::ops
