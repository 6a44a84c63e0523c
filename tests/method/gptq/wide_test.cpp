// GPTQ of rows that are longer, or more, than what is done at once.

#include <gtest/gtest.h>

#include "method/gptq/factor.h"
#include "method/gptq/gptq_naive.h"
#include "ops/rounding/quantize.h"

namespace pennyweight {
namespace {

/// Made of some directions and a diagonal, which takes little time.
const std::vector<float>& wide_hessian(int64_t n) {
  static std::vector<float> hessian;
  if (!hessian.empty()) {
    return hessian;
  }
  constexpr int64_t kDirections = 128;
  const auto basis = normal_weight(n, kDirections, 41);
  hessian.resize(size_t(n * n));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      float sum = i == j ? 1e-3f * float(1 + i % 7) : 0.0f;
      for (int64_t d = 0; d < kDirections; ++d) {
        sum += basis[size_t(i * kDirections + d)] *
            basis[size_t(j * kDirections + d)];
      }
      hessian[size_t(i * n + j)] = hessian[size_t(j * n + i)] = sum;
    }
  }
  return hessian;
}

/// Codes of a row by u_i = t_i + sum_{j<i} A_ij e_j, on its own grids.
std::vector<int> naive_pass(
    const float* weight,
    const GptqHessian::Factor& f,
    const float* scales,
    const float* biases,
    int64_t group,
    int top) {
  const int64_t n = f.columns;
  Doubles error(static_cast<size_t>(n));
  std::vector<int> codes(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    const int64_t column = f.order[size_t(i)];
    double u = weight[column];
    for (int64_t j = 0; j < i; ++j) {
      u += double(f.feedback[size_t(i * n + j)]) * error[size_t(j)];
    }
    const double s = scales[column / group];
    const double b = biases[column / group];
    const double code =
        std::clamp(std::nearbyint((u - b) / s), 0.0, double(top));
    codes[size_t(column)] = int(code);
    error[size_t(i)] = double(weight[column]) - (s * code + b);
  }
  return codes;
}

constexpr int64_t kWideRows = 4, kWide = 2304, kWideGroup = 64;

TEST(GptqWide, PassFeedsEveryErrorBack) {
  const auto weight = normal_weight(kWideRows, kWide, 42);
  GptqOptions options;
  options.rounds = 0;
  const GptqHessian factored(wide_hessian(kWide), kWide, options);
  const auto result = gptq_quantize(
      weight.data(),
      kWideRows,
      factored,
      affine(4, kWideGroup),
      DType::f32,
      options);
  int64_t same = 0;
  for (int64_t r = 0; r < kWideRows; ++r) {
    const int64_t grids = r * kWide / kWideGroup;
    const auto codes = naive_pass(
        weight.data() + r * kWide,
        factored.factor(),
        result.scales.data() + grids,
        result.biases.data() + grids,
        kWideGroup,
        15);
    same += std::equal(
        codes.begin(), codes.end(), result.codes.begin() + r * kWide);
  }
  // One row may hold a tie that float32 decides otherwise.
  EXPECT_GE(same, kWideRows - 1);
}

TEST(GptqWide, LossesAreThoseOfTheCodes) {
  const auto weight = normal_weight(kWideRows, kWide, 43);
  const auto& hessian = wide_hessian(kWide);
  Doubles losses;
  for (bool plain : {true, false}) {
    for (bool descend : {false, true}) {
      GptqOptions options;
      options.plain = plain;
      options.descend = descend;
      const auto result =
          quantize(weight, kWideRows, hessian, affine(3, kWideGroup), options);
      losses.push_back(naive_loss(
          weight,
          values_of(result, kWide, kWideGroup),
          hessian,
          0,
          kWideRows,
          kWide));
      EXPECT_NEAR(result.figures.loss, losses.back(), 2e-3 * losses.back());
      EXPECT_EQ(result.figures.codes_moved > 0, descend && !plain);
    }
  }
  EXPECT_LT(losses[2], losses[1]);  // refitted, against plain
  EXPECT_LT(losses[3], losses[2]);  // and descended
}

TEST(GptqWide, ManyShiftedRowsAreAsAlone) {
  const int64_t n = 192, rows = 17 * 64, alone = 64, before = rows - alone;
  const auto weight = normal_weight(rows, n, 44);
  const auto shift = normal_weight(rows, n, 45);
  const GptqOptions options;
  const GptqHessian factored(correlated_hessian(n, 46), n, options);
  const auto run = [&](int64_t first, int64_t count) {
    return gptq_quantize(
        weight.data() + first * n,
        count,
        factored,
        affine(4, kWideGroup),
        DType::bf16,
        options,
        {.input = nullptr, .output = shift.data() + first * n});
  };
  const auto all = run(0, rows);
  const auto last = run(before, alone);
  EXPECT_TRUE(std::equal(
      last.codes.begin(), last.codes.end(), all.codes.begin() + before * n));
  EXPECT_GT(last.figures.shift, 0);
}

TEST(GptqWide, PlainLossesOfManyRowsAreNearTheExactOnes) {
  const int64_t n = 128, rows = 4096;
  const auto weight = normal_weight(rows, n, 47);
  const auto& hessian = correlated_hessian(n, 48);
  GptqOptions options;
  options.plain = true;
  const auto result = quantize(weight, rows, hessian, affine(4, 32), options);
  const double loss =
      naive_loss(weight, values_of(result, n, 32), hessian, 0, rows, n);
  const double rtn =
      naive_loss(weight, nearest(weight, 4, 32), hessian, 0, rows, n);
  EXPECT_NEAR(result.figures.loss, loss, 0.1 * loss);
  EXPECT_NEAR(result.figures.loss_nearest, rtn, 0.1 * rtn);
  options.figures = false;
  const auto without = quantize(weight, rows, hessian, affine(4, 32), options);
  EXPECT_EQ(without.codes, result.codes);
  EXPECT_EQ(without.figures.loss, 0);
}

}  // namespace
}  // namespace pennyweight
