#include "method/learned/rounding_loss.h"

#include <gtest/gtest.h>
#include <mlx/mlx.h>

#include <cmath>
#include <cstdlib>

#include "ops/rounding/quantize.h"
#include "pass/floats.h"

namespace pennyweight {

namespace {

mx::array random(const mx::Shape& shape, uint64_t seed) {
  auto x = mx::random::normal(shape, mx::random::key(seed));
  mx::eval(x);
  return x;
}

class RoundingLoss : public ::testing::Test {
 protected:
  void SetUp() override {
    mx::set_default_device(mx::Device::cpu);
  }
};

// Squares of what is summed in float32 by 64: 2^-24 an addition.
constexpr double kClose = 1e-5;

TEST_F(RoundingLoss, GradientSumsAreNaive) {
  const int rows = 333, out = 37, parts = 3;
  const auto dy = random({rows, out}, 1);
  std::vector<uint32_t> owners;
  for (int i = 0; i < rows; ++i) {
    owners.push_back(i < 100 ? 0 : i < 101 ? 1 : 2);
  }
  const mx::array part(owners.data(), {rows}, mx::uint32);
  for (const auto type : {mx::float32, mx::bfloat16, mx::float16}) {
    GradientSums sums(out, parts);
    const auto values = mx::astype(dy, type);
    const auto wide = to_vector(mx::astype(values, mx::float32));
    const auto means = to_vector(sums.add(values, part));
    sums.add(values, part);
    std::vector<double> expected(size_t(parts * out));
    double total = 0;
    for (size_t i = 0; i < size_t(rows); ++i) {
      double mean = 0;
      for (size_t j = 0; j < size_t(out); ++j) {
        const double square = std::pow(double(wide[i * out + j]), 2);
        expected[owners[i] * out + j] += square;
        mean += square / out;
      }
      EXPECT_NEAR(means[i], mean, kClose * mean);
      total += mean;
    }
    for (size_t own = 0; own < size_t(parts); ++own) {
      const auto weights = sums.row_weights(int64_t(own));
      for (size_t j = 0; j < size_t(out); ++j) {
        const double weight = expected[own * out + j] / total;
        EXPECT_NEAR(weights[j], weight, kClose * weight);
      }
    }
  }
}

// Where g_r^2 = a b_r indeed, the loss is the sum over tokens itself.
TEST_F(RoundingLoss, IsTheSumOverTokens) {
  const size_t rows = 50, in = 24, out = 16;
  const auto x = random({int(rows), int(in)}, 1);
  const auto e = random({int(out), int(in)}, 2);
  const auto a = mx::exp(random({int(rows), 1}, 3));
  const auto b = mx::exp(random({1, int(out)}, 4));
  const auto dy = mx::multiply(a, b);
  GradientSums sums(out);
  mx::array gradients = mx::contiguous(dy);
  const auto weights = sums.add(gradients, std::nullopt);
  const auto seen = mx::multiply(x, mx::sqrt(weights));
  const auto metric = mx::matmul(mx::transpose(seen), seen);
  const double found = rounding_loss(e, metric, sums.row_weights());
  const auto change = to_vector(mx::matmul(x, mx::transpose(e)));
  const auto g = to_vector(gradients);
  double expected = 0;
  for (size_t i = 0; i < rows * out; ++i) {
    expected += 0.5 * std::pow(double(g[i]) * double(change[i]), 2);
  }
  EXPECT_NEAR(found, expected, kClose * expected);
}

TEST_F(RoundingLoss, GptqIsRunWhereAskedAndScaledElsewhere) {
  const int in = 128, out = 48;
  const auto x = mx::matmul(random({400, in}, 1), random({in, in}, 2));
  const auto gram = mx::matmul(mx::transpose(x), x);
  const GptqHessian hessian(to_vector(gram), in, {});
  const RoundedLinear linear{
      random({out, in}, 3), gram, std::vector<float>(out, 1.0f), hessian};
  const auto candidates = parse_candidates("2:64,3:64,3:32,4:64,8:64,bf16");
  const auto nearest = rounding_losses(linear, candidates, {});
  for (size_t i = 0; i + 1 < candidates.size(); ++i) {
    const auto rounded = quantize(linear.weight, *candidates[i]);
    const auto e =
        mx::subtract(ops::dequantize(rounded, mx::float32), linear.weight);
    const auto diagonal = mx::multiply(mx::square(e), mx::diag(gram));
    const double expected = 0.5 * double(mx::sum(diagonal).item<float>());
    EXPECT_NEAR(nearest[i], expected, kClose * expected);
  }
  EXPECT_EQ(nearest.back(), 0);
  const auto losses = rounding_losses(linear, candidates, {3, 4});
  GptqOptions options;
  options.rounds = 0;
  for (const size_t i : {size_t{1}, size_t{3}}) {
    const auto weight = to_vector(linear.weight);
    const auto result = gptq_quantize(
        weight.data(),
        out,
        hessian,
        *candidates[i],
        kernels::DType::f32,
        options);
    const double expected = result.figures.loss_rounded / 2;
    EXPECT_NEAR(losses[i], expected, 1e-4 * expected);
    EXPECT_LT(losses[i], 0.9 * nearest[i]);
  }
  const auto share = [&](size_t i) { return losses[i] / nearest[i]; };
  EXPECT_DOUBLE_EQ(share(0), share(1));
  EXPECT_DOUBLE_EQ(share(2), share(1));
  EXPECT_DOUBLE_EQ(share(4), share(3));
}

// What GPTQ leaves of nearest's loss hardly differs from row to row, unlike
// what a row counts: here one that is not taken counts more than all others.
TEST_F(RoundingLoss, SomeRowsStandForAll) {
  const int in = 128, out = 256;
  const auto x = mx::matmul(random({400, in}, 1), random({in, in}, 2));
  const auto gram = mx::matmul(mx::transpose(x), x);
  const GptqHessian hessian(to_vector(gram), in, {});
  std::vector<float> weights(out, 1.0f);
  weights[20] = 500;
  const RoundedLinear linear{random({out, in}, 3), gram, weights, hessian};
  const auto candidates = parse_candidates("2:64,3:64,4:32,8:64,bf16");
  const auto all = rounding_losses(linear, candidates, {3, 4});
  const auto some = rounding_losses(linear, candidates, {3, 4}, 4);
  for (size_t i = 0; i + 1 < candidates.size(); ++i) {
    EXPECT_NE(some[i], all[i]);
    EXPECT_NEAR(some[i], all[i], 0.2 * all[i]);
  }
  EXPECT_EQ(some.back(), 0);
}

TEST_F(RoundingLoss, WhatDoesNotFitIsNotANumber) {
  const int in = 96;
  const GptqHessian hessian(to_vector(mx::eye(in)), in, {});
  const RoundedLinear linear{
      random({8, in}, 3), mx::eye(in), std::vector<float>(8, 1.0f), hessian};
  const auto losses =
      rounding_losses(linear, parse_candidates("4:64,4:32,bf16"), {4});
  EXPECT_TRUE(std::isnan(losses[0]));
  EXPECT_GT(losses[1], 0);
  EXPECT_EQ(losses[2], 0);
}

TEST_F(RoundingLoss, TheClosestWidthIsTheHigherOfTwo) {
  const auto candidates = parse_candidates("2,3,4,8");
  const auto nearest = [](const QuantSpec& spec) {
    return std::pow(4.0, -spec.bits);
  };
  const auto losses = spread_losses(
      {{*candidates[0], 0.5 / 16}, {*candidates[2], 0.75 / 256}},
      candidates,
      64,
      nearest);
  EXPECT_DOUBLE_EQ(losses[0], 0.5 / 16);
  EXPECT_DOUBLE_EQ(losses[1], 0.75 / 64);
  EXPECT_DOUBLE_EQ(losses[2], 0.75 / 256);
  EXPECT_DOUBLE_EQ(losses[3], 0.75 / 65536);
}

// In the mean over rows, nearest's errors add up as if they were independent
// of each other, however the inputs hang together: 4,096 rows of sums of some
// tens of independent terms.
TEST_F(RoundingLoss, NearestNeedsTheDiagonalAlone) {
  const int in = 64, out = 4096;
  const auto x = mx::matmul(random({400, 8}, 1), random({8, in}, 2));
  const auto gram = mx::matmul(mx::transpose(x), x);
  const auto weight = random({out, in}, 3);
  const std::vector<float> rows(out, 1.0f);
  for (const int bits : {3, 4, 8}) {
    const QuantSpec spec{"affine", bits, 64};
    const auto e = mx::subtract(
        ops::dequantize(quantize(weight, spec), mx::float32), weight);
    const double whole = rounding_loss(e, gram, rows);
    const double found =
        nearest_loss(weight, spec, to_vector(mx::diag(gram)), rows);
    EXPECT_NEAR(found / whole, 1, 0.1);
  }
}

}  // namespace

}  // namespace pennyweight
