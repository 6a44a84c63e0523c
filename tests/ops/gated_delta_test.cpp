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

/// The scan as it is defined, a token at a time.
mx::array naive_scan(const std::vector<mx::array>& in) {
  const auto &c = in[0], &b = in[1], &x = in[2];
  const int heads = x.shape(2);
  const int group = heads / c.shape(2);
  const auto token = [&](const mx::array& own, int t) {
    return mx::take(own, mx::array(t), 1);
  };
  auto state = mx::zeros({x.shape(0), heads, x.shape(3), c.shape(3)});
  std::vector<mx::array> parts;
  for (int t = 0; t < x.shape(1); ++t) {
    const auto by_head = [&](const mx::array& own) {
      return mx::expand_dims(mx::repeat(token(own, t), group, 1), 2);
    };
    const auto column = [&](const mx::array& own) {
      return mx::expand_dims(own, {2, 3});
    };
    const auto value = mx::expand_dims(token(x, t), 3);
    const auto fed = mx::multiply(column(token(in[4], t)), value);
    state = mx::add(
        mx::multiply(column(mx::exp(token(in[3], t))), state),
        mx::multiply(fed, by_head(b)));
    parts.push_back(mx::add(
        mx::sum(mx::multiply(state, by_head(c)), -1),
        mx::multiply(mx::reshape(in[5], {1, heads, 1}), token(x, t))));
  }
  return mx::stack(parts, 1);
}

/// c, b, x, rate, dt, skip of the length.
std::vector<mx::array> scan_inputs(int length, mx::Dtype type) {
  const auto both = random({2, length, 2, 40}, type, 1);
  const auto part = [&](int first) {
    return mx::slice(both, {0, 0, 0, first}, {2, length, 2, first + 20});
  };
  const auto dt =
      mx::logaddexp(random({2, length, 6}, mx::float32, 3), mx::array(0.0f));
  const auto rates = mx::exp(random({6}, mx::float32, 4));
  return {
      part(0),
      part(20),
      random({2, length, 6, 10}, type, 2),
      mx::negative(mx::multiply(rates, dt)),
      dt,
      random({6}, mx::float32, 5)};
}

mx::array scan(const std::vector<mx::array>& x) {
  return ssd_scan(x[0], x[1], x[2], x[3], x[4], x[5]);
}

TEST_P(DeltaOps, ScanEqualsItsDefinition) {
  const auto type = GetParam();
  const int length = 70;  // two of the fallback's chunks
  const auto in = scan_inputs(length, type);
  auto all = in;
  for (auto& x : all) {
    x = wide(x);
  }
  const auto expected = naive_scan(all);
  expect_close(scan(in), expected, type, 1, length * 20);
  const auto by_mlx =
      mlx_path::ssd_scan(all[0], all[1], all[2], all[3], all[4], all[5]);
  expect_close(by_mlx, expected, mx::float32, 1, length * 20);
}

TEST_P(DeltaOps, ScansGradientsEqualThoseOfItsDefinition) {
  const auto type = GetParam();
  const int length = 70;
  const auto in = scan_inputs(length, type);
  auto all = in;
  for (auto& x : all) {
    x = wide(x);
  }
  const auto dy = random({2, length, 6, 10}, type, 8);
  const auto gradients = [](auto&& scanned, const auto& at, const auto& by) {
    return mx::vjp(
               [&](const std::vector<mx::array>& x) {
                 return std::vector<mx::array>{scanned(x)};
               },
               at,
               {by})
        .second;
  };
  const auto ours = gradients(scan, in, dy);
  const auto theirs = gradients(naive_scan, all, wide(dy));
  for (size_t i = 0; i < 6; ++i) {
    const auto kind = i < 3 ? type : mx::float32;
    expect_close(ours[i], theirs[i], kind, 1, length * 20);
  }
}

TEST_P(DeltaOps, ConvolutionsWithABiasEqualMlx) {
  const auto type = GetParam();
  const auto x = random({2, 9, 40}, type, 1);
  const auto weight = random({40, 3}, type, 2);
  const auto bias = random({40}, type, 3);
  const auto dy = random({2, 9, 40}, type, 4);
  const std::vector<mx::array> in{x, weight, bias};
  const std::vector<mx::array> all{wide(x), wide(weight), wide(bias)};
  for (const bool silu : {false, true}) {
    const auto ours = [&](const std::vector<mx::array>& at) {
      return std::vector<mx::array>{causal_conv(at[0], at[1], silu, at[2])};
    };
    const auto theirs = [&](const std::vector<mx::array>& at) {
      return std::vector<mx::array>{
          mlx_path::causal_conv(at[0], at[1], silu, at[2])};
    };
    const auto [made, by_in] = mx::vjp(ours, in, {dy});
    const auto [expected, by_all] = mx::vjp(theirs, all, {wide(dy)});
    expect_close(made[0], expected[0], type, 1, 8);
    for (size_t i = 0; i < 3; ++i) {
      expect_close(by_in[i], by_all[i], type, 4, 40);
    }
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
  const auto conv = mx::zeros({5, 2});
  EXPECT_THROW(
      causal_conv(mx::zeros({1, 3, 5}), conv, true, mx::zeros({4})), Error);
  const auto skip = mx::zeros({4});
  EXPECT_NO_THROW(ssd_scan(q, q, v, gates, gates, skip));
  EXPECT_THROW(ssd_scan(q, q, v, gates, gates, mx::zeros({3})), Error);
  EXPECT_THROW(
      ssd_scan(q, mx::zeros({1, 3, 2, 7}), v, gates, gates, skip), Error);
}

}  // namespace

}  // namespace pennyweight::ops
