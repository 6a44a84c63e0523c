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
