#include "method/awq/awq.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "method/gptq/gptq_naive.h"

namespace pennyweight {
namespace {

constexpr int64_t kAwqRows = 70;  // more than a tile, and not two
constexpr int64_t kAwqColumns = 256;

QuantSpec four_bits() {
  return make_quant_spec("affine", 4, 64);
}

/// The weight that the result stands for, before scaling.
Doubles unscaled_values(const AwqInput& input, const GptqResult& result) {
  Doubles values = values_of(result, kAwqColumns, 64);
  for (int64_t r = 0; r < kAwqRows; ++r) {
    for (int64_t c = 0; c < kAwqColumns; ++c) {
      double& value = values[size_t(r * kAwqColumns + c)];
      value /= input.column_scales ? double(input.column_scales[c]) : 1.0;
      value *= input.row_scales ? double(input.row_scales[r]) : 1.0;
    }
  }
  return values;
}

struct AwqCase {
  std::vector<float> weight = normal_weight(kAwqRows, kAwqColumns, 1);
  std::vector<float> gram = correlated_hessian(kAwqColumns, 2);
  std::vector<float> columns, rows;

  AwqInput input() const {
    return {
        weight.data(),
        kAwqRows,
        kAwqColumns,
        gram.data(),
        columns.empty() ? nullptr : columns.data(),
        rows.empty() ? nullptr : rows.data()};
  }
  GptqResult round(const AwqOptions& options) const {
    return awq_round(input(), four_bits(), DType::f32, options);
  }
  double naive(const GptqResult& result) const {
    return naive_loss(
        weight,
        unscaled_values(input(), result),
        gram,
        0,
        kAwqRows,
        kAwqColumns);
  }
};

AwqOptions without_clip() {
  AwqOptions options;
  options.clip = false;
  return options;
}

TEST(Awq, LossIsThatOfTheCodes) {
  AwqCase c;
  for (int64_t i = 0; i < kAwqColumns; ++i) {
    c.columns.push_back(std::exp2(float(i % 9) / 4 - 1));
  }
  for (int64_t i = 0; i < kAwqRows; ++i) {
    c.rows.push_back(std::exp2(float(i % 5) - 2));
  }
  for (bool clip : {false, true}) {
    AwqOptions options;
    options.clip = clip;
    const auto result = c.round(options);
    // float32 sums of kAwqColumns products, twice.
    const double exact = c.naive(result);
    EXPECT_NEAR(result.figures.loss, exact, exact * 2 * kAwqColumns * 0x1p-24);
  }
}

TEST(Awq, WithoutScalesAndRangesIsRoundingToNearest) {
  const AwqCase c;
  const auto values = values_of(c.round(without_clip()), kAwqColumns, 64);
  const auto expected = nearest(c.weight, 4, 64);
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_NEAR(values[i], expected[i], 1e-6);
  }
}

/// e^T G_gg e of each row and group.
Doubles group_losses(const AwqCase& c, const GptqResult& result) {
  const auto values = unscaled_values(c.input(), result);
  Doubles losses;
  for (int64_t r = 0; r < kAwqRows; ++r) {
    for (int64_t g = 0; g < kAwqColumns; g += 64) {
      double sum = 0;
      for (int64_t i = g; i < g + 64; ++i) {
        for (int64_t j = g; j < g + 64; ++j) {
          const auto error = [&](int64_t k) {
            const auto at = size_t(r * kAwqColumns + k);
            return double(c.weight[at]) - values[at];
          };
          sum +=
              error(i) * double(c.gram[size_t(i * kAwqColumns + j)]) * error(j);
        }
      }
      losses.push_back(sum);
    }
  }
  return losses;
}

TEST(Awq, RangesRaiseNoGroupsLoss) {
  const AwqCase c;
  AwqOptions both;
  AwqOptions alike;
  alike.asymmetric = false;
  const auto none = group_losses(c, c.round(without_clip()));
  const auto some = group_losses(c, c.round(alike));
  const auto all = group_losses(c, c.round(both));
  double sums[3] = {};
  for (size_t i = 0; i < none.size(); ++i) {
    const double slack = none[i] * 64 * 0x1p-22;
    ASSERT_LE(some[i], none[i] + slack);
    ASSERT_LE(all[i], some[i] + slack);
    sums[0] += none[i];
    sums[1] += some[i];
    sums[2] += all[i];
  }
  EXPECT_LT(sums[1], 0.95 * sums[0]);
  EXPECT_LT(sums[2], 0.98 * sums[1]);
}

TEST(Awq, ScalesHelpWhereInputsStandOut) {
  // One input in 32 is 30 times as large, as in a transformer's activations.
  AwqCase c;
  std::vector<float> means;
  for (int64_t i = 0; i < kAwqColumns; ++i) {
    means.push_back(i % 32 == 5 ? 30.0f : 1.0f);
  }
  std::fill(c.gram.begin(), c.gram.end(), 0.0f);
  for (int64_t i = 0; i < kAwqColumns; ++i) {
    c.gram[size_t(i * (kAwqColumns + 1))] = means[size_t(i)] * means[size_t(i)];
  }
  const double before = c.round(without_clip()).figures.loss;
  c.columns = awq_scales(means, 0.5);
  const auto scaled = c.round(without_clip());
  EXPECT_LT(scaled.figures.loss, 0.5 * before);
  EXPECT_NEAR(scaled.figures.loss, c.naive(scaled), 1e-4 * before);
}

TEST(Awq, ScalesAreMlxLms) {
  // max(m^r, 1e-4) over the root of largest times smallest.
  const auto scales = awq_scales({4.0f, 1.0f, 0.0f}, 0.5);
  const double middle = std::sqrt(2.0 * 1e-4);
  EXPECT_NEAR(scales[0], 2 / middle, 1e-4);
  EXPECT_NEAR(scales[1], 1 / middle, 1e-4);
  EXPECT_NEAR(scales[2], 1e-4 / middle, 1e-6);
}

TEST(Awq, RefusesWhatItCannotDo) {
  AwqCase c;
  EXPECT_THROW(
      awq_round(
          c.input(),
          make_quant_spec("mxfp4", std::nullopt, std::nullopt),
          DType::f32,
          {}),
      Error);
  c.weight[7] = INFINITY;
  EXPECT_THROW(c.round({}), Error);
  AwqOptions options;
  options.n_grid = 0;
  EXPECT_THROW(check_options(options), Error);
}

}  // namespace
}  // namespace pennyweight
