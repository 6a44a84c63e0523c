#include "method/gptq/gptq.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <string>

#include "kernels/threads.h"
#include "method/gptq/factor.h"
#include "method/gptq/gptq_naive.h"

namespace pennyweight {
namespace {

/// Correct GPTQ leaves at most 8 % of the loss of rounding to nearest here;
/// one that feeds errors back to the wrong columns leaves over 20 %.
TEST(Gptq, LossAgainstRoundingToNearest) {
  const int64_t rows = 64, n = 512;
  const auto weight = normal_weight(rows, n, 5);
  const auto hessian = correlated_hessian(n, 6);
  for (bool plain : {true, false}) {
    GptqOptions options;
    options.plain = plain;
    const auto result = quantize(weight, rows, hessian, affine(4, 64), options);
    const double loss =
        naive_loss(weight, values_of(result, n, 64), hessian, 0, rows, n);
    const double rtn =
        naive_loss(weight, nearest(weight, 4, 64), hessian, 0, rows, n);
    EXPECT_LT(loss, 0.08 * rtn) << (plain ? "plain" : "default");
    EXPECT_NEAR(result.figures.loss_nearest, rtn, 0.05 * rtn);
    RecordProperty(
        plain ? "plain_share" : "default_share", std::to_string(loss / rtn));
  }
}

TEST(Gptq, RefitRaisesNoRowsLoss) {
  const int64_t rows = 64, n = 256;
  const auto weight = normal_weight(rows, n, 7);
  const auto hessian = correlated_hessian(n, 8);
  GptqOptions options;
  options.rounds = 0;
  const GptqHessian factored(hessian, n, options);
  const auto before = quantize(weight, rows, hessian, affine(3, 32), options);
  for (int rounds : {1, 2, 4}) {
    options.rounds = rounds;
    const auto after = quantize(weight, rows, hessian, affine(3, 32), options);
    const Doubles old_values = values_of(before, n, 32);
    const Doubles new_values = values_of(after, n, 32);
    for (int64_t r = 0; r < rows; ++r) {
      // Over the damped Hessian, in which the stages decide.
      const auto row_loss = [&](const Doubles& values) {
        return naive_loss(
            weight, values, hessian, r, r + 1, n, factored.lambda());
      };
      EXPECT_LE(row_loss(new_values), row_loss(old_values) * (1 + 1e-5));
    }
  }
}

TEST(Gptq, OrderOfRoundingLowersTheLoss) {
  const int64_t rows = 64, n = 512;
  const auto weight = normal_weight(rows, n, 9);
  const auto hessian = correlated_hessian(n, 10);
  GptqOptions options;
  options.rounds = 0;
  const auto ordered = quantize(weight, rows, hessian, affine(3, 64), options);
  options.act_order = false;
  const auto file = quantize(weight, rows, hessian, affine(3, 64), options);
  EXPECT_LT(ordered.figures.loss, file.figures.loss);
}

TEST(Gptq, ThreadsDoNotChangeTheResult) {
  const int64_t rows = 200, n = 384;
  const auto weight = normal_weight(rows, n, 11);
  const auto hessian = correlated_hessian(n, 12);
  const GptqOptions options;
  std::vector<GptqResult> results;
  for (const int threads : {1, 2, 3}) {
    kernels::override_thread_count(threads);
    results.push_back(quantize(weight, rows, hessian, affine(4, 64), options));
  }
  kernels::override_thread_count(0);
  for (const auto& result : results) {
    EXPECT_EQ(result.codes, results[0].codes);
    EXPECT_EQ(result.scales, results[0].scales);
    EXPECT_EQ(result.biases, results[0].biases);
  }
}

TEST(Gptq, FiguresDoNotChangeTheResult) {
  const int64_t rows = 40, n = 256;
  const auto weight = normal_weight(rows, n, 15);
  const auto hessian = correlated_hessian(n, 16);
  for (const int rounds : {0, 1}) {
    GptqOptions options;
    options.rounds = rounds;
    const auto with = quantize(weight, rows, hessian, affine(3, 64), options);
    options.figures = false;
    const auto without =
        quantize(weight, rows, hessian, affine(3, 64), options);
    EXPECT_GT(with.figures.loss_nearest, 0);
    EXPECT_EQ(without.figures.loss_nearest, 0);
    EXPECT_EQ(with.codes, without.codes);
    EXPECT_EQ(with.scales, without.scales);
    EXPECT_EQ(with.biases, without.biases);
  }
}

TEST(Gptq, RowsAreIndependentOfTheirNeighbours) {
  const int64_t n = 256;
  const auto weight = normal_weight(100, n, 13);
  const auto hessian = correlated_hessian(n, 14);
  const auto all = quantize(weight, 100, hessian, affine(4, 64), {});
  const std::vector<float> some(weight.begin(), weight.begin() + 70 * n);
  const auto part = quantize(some, 70, hessian, affine(4, 64), {});
  EXPECT_TRUE(
      std::equal(part.codes.begin(), part.codes.end(), all.codes.begin()));
}

/// GPTAQ's objective, |W X_full - Q X|^2, taken from the inputs themselves.
TEST(Gptq, ShiftFollowsTheFullPrecisionOutput) {
  const int64_t rows = 64, n = 256, tokens = 1024;
  const auto weight = normal_weight(rows, n, 15);
  const auto full = correlated_inputs(tokens, n, 16);
  auto x = full;
  const auto noise = correlated_inputs(tokens, n, 17);
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] += 0.1f * noise[i];
  }
  auto difference = full;
  for (size_t i = 0; i < x.size(); ++i) {
    difference[i] -= x[i];
  }
  const auto hessian = product_over_tokens(x, x, tokens, n);
  const auto input = product_over_tokens(difference, x, tokens, n);
  const auto output_error = [&](const GptqResult& result) {
    const Doubles values = values_of(result, n, 64);
    double total = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t r = 0; r < rows; ++r) {
        double error = 0;
        for (int64_t i = 0; i < n; ++i) {
          error += double(weight[size_t(r * n + i)]) *
                  double(full[size_t(t * n + i)]) -
              values[size_t(r * n + i)] * double(x[size_t(t * n + i)]);
        }
        total += error * error;
      }
    }
    return total;
  };
  GptqOptions options;
  options.shift = 1.0;
  const GptqHessian factored(hessian, n, options);
  const auto run = [&](const GptqShift& shift) {
    return gptq_quantize(
        weight.data(),
        rows,
        factored,
        affine(4, 64),
        DType::bf16,
        options,
        shift);
  };
  const auto without = run({});
  const auto with = run({.input = input.data(), .output = nullptr});
  EXPECT_GT(with.figures.shift, 0.0);
  EXPECT_LT(output_error(with), 0.8 * output_error(without));

  // W times the input's shift is an output's shift.
  std::vector<float> output(size_t(rows * n));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t i = 0; i < n; ++i) {
        sum += double(weight[size_t(r * n + i)]) *
            double(input[size_t(i * n + j)]);
      }
      output[size_t(r * n + j)] = float(sum);
    }
  }
  const auto other = run({.input = nullptr, .output = output.data()});
  EXPECT_NEAR(other.figures.shift, with.figures.shift, 1e-4);
  EXPECT_NEAR(
      output_error(other), output_error(with), 0.02 * output_error(with));
}

TEST(Gptq, ShiftIsLinearInItsShare) {
  const int64_t rows = 10, n = 192;
  const auto weight = normal_weight(rows, n, 18);
  const auto hessian = correlated_hessian(n, 19);
  const auto cross = normal_weight(rows, n, 20);
  std::vector<double> shifts;
  for (double share : {0.5, 1.0}) {
    GptqOptions options;
    options.shift = share;
    const GptqHessian factored(hessian, n, options);
    shifts.push_back(gptq_quantize(
                         weight.data(),
                         rows,
                         factored,
                         affine(4, 64),
                         DType::bf16,
                         options,
                         {.input = nullptr, .output = cross.data()})
                         .figures.shift);
  }
  EXPECT_NEAR(shifts[1], 2 * shifts[0], 1e-5 * shifts[1]);
}

TEST(Gptq, DeadInputsAreRoundedToNearestAndMoveNothing) {
  const int64_t rows = 20, n = 256;
  auto weight = normal_weight(rows, n, 21);
  auto hessian = correlated_hessian(n, 22);
  for (int64_t dead : {3, 64, 255}) {
    for (int64_t i = 0; i < n; ++i) {
      hessian[size_t(dead * n + i)] = hessian[size_t(i * n + dead)] = 0;
    }
  }
  const auto result = quantize(weight, rows, hessian, affine(4, 64), {});
  EXPECT_EQ(result.figures.dead_inputs, 3);
  const Doubles values = values_of(result, n, 64);
  for (int64_t r = 0; r < rows; ++r) {
    const size_t at = size_t(r * n + 64);
    const double scale = result.scales[size_t(r * (n / 64) + 1)];
    EXPECT_LE(std::fabs(values[at] - double(weight[at])), std::fabs(scale) * 8);
    EXPECT_TRUE(std::isfinite(values[at]));
  }
}

TEST(Gptq, NoInputAtAllRoundsToNearest) {
  const int64_t rows = 8, n = 128;
  const auto weight = normal_weight(rows, n, 23);
  const std::vector<float> hessian(size_t(n * n), 0.0f);
  GptqOptions options;
  options.plain = true;
  const auto result =
      quantize(weight, rows, hessian, affine(4, 64), options, DType::f32);
  EXPECT_EQ(result.figures.dead_inputs, n);
  const Doubles values = values_of(result, n, 64);
  const Doubles expected = nearest(weight, 4, 64);
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_NEAR(values[i], expected[i], 1e-6);
  }
}

TEST(Gptq, FlatGroupsAndRowsOfZeros) {
  const int64_t rows = 4, n = 128;
  auto weight = normal_weight(rows, n, 24);
  std::fill(weight.begin(), weight.begin() + 64, 0.25f);
  std::fill(weight.begin() + n, weight.begin() + 2 * n, 0.0f);
  const auto hessian = correlated_hessian(n, 25);
  for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    const auto result =
        quantize(weight, rows, hessian, affine(4, 64), {}, dtype);
    const Doubles values = values_of(result, n, 64);
    for (int64_t i = 0; i < n; ++i) {
      EXPECT_NEAR(values[size_t(n + i)], 0.0, 2e-6);
    }
  }
}

TEST(Gptq, GridsAreExactInTheOutputType) {
  const int64_t rows = 16, n = 128;
  const auto weight = normal_weight(rows, n, 26);
  const auto hessian = correlated_hessian(n, 27);
  for (bool plain : {true, false}) {
    GptqOptions options;
    options.plain = plain;
    const auto result = quantize(weight, rows, hessian, affine(4, 64), options);
    for (float s : result.scales) {
      kernels::BFloat16 stored;
      kernels::from_float(s, stored);
      EXPECT_EQ(kernels::to_float(stored), s);
    }
  }
}

TEST(GptqHessian, FactorsMultiplyBack) {
  for (int64_t n : {1, 63, 64, 65, 200, 520, 1030}) {
    std::vector<float> hessian(size_t(n * n));
    std::iota(hessian.begin(), hessian.end(), 0.0f);
    hessian = n >= 63 ? correlated_hessian(n, 28) : std::vector<float>{2.0f};
    const GptqHessian factored(hessian, n, {});
    const auto& f = factored.factor();
    double worst = 0;
    const double mean = factored.lambda() / factored.damp();
    for (int64_t i = 0; i < n; i += 7) {
      for (int64_t j = 0; j <= i; j += 5) {
        double sum = 0;
        for (int64_t k = i; k < n; ++k) {
          const auto a = [&](int64_t row, int64_t column) {
            return row == column ? 1.0
                                 : double(f.feedback[size_t(row * n + column)]);
          };
          sum += a(k, i) * double(f.pivots[size_t(k)]) * a(k, j);
        }
        const int64_t fi = f.order[size_t(i)], fj = f.order[size_t(j)];
        const double expected = double(hessian[size_t(fi * n + fj)]) +
            (i == j ? factored.lambda() : 0.0);
        worst = std::max(worst, std::fabs(sum - expected));
      }
    }
    // float32 sums of n terms as large as the diagonal.
    EXPECT_LT(worst, 2e-5 * mean * std::sqrt(double(n))) << n;
  }
}

TEST(GptqHessian, RaisesTheDampingUntilItFactors) {
  const int64_t n = 64;
  auto hessian = correlated_hessian(n, 29);
  double mean = 0;
  for (int64_t i = 0; i < n; ++i) {
    mean += double(hessian[size_t(i * n + i)]) / double(n);
  }
  // An eigenvalue of about -0.3 times the mean diagonal.
  hessian[0] = float(-0.3 * mean);
  for (int64_t i = 1; i < n; ++i) {
    hessian[size_t(i)] = hessian[size_t(i * n)] = 0;
  }
  GptqOptions options;
  const GptqHessian factored(hessian, n, options);
  EXPECT_NEAR(factored.damp(), 1.0, 1e-9);
  EXPECT_EQ(factored.dead_inputs(), 1);
  options.damp = 0;
  EXPECT_GT(GptqHessian(hessian, n, options).damp(), 0.3);
}

TEST(GptqHessian, RefusesWhatIsNotFinite) {
  std::vector<float> hessian(size_t(64 * 64), 0.0f);
  hessian[5] = NAN;
  try {
    GptqHessian(hessian, 64, {});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::numeric);
  }
  EXPECT_THROW(GptqHessian(hessian, 63, {}), Error);
}

TEST(Gptq, RefusesWhatItCannotRound) {
  const int64_t n = 128;
  const auto hessian = correlated_hessian(n, 30);
  auto weight = normal_weight(2, n, 31);
  const auto code_of = [&](const QuantSpec& spec) {
    try {
      quantize(weight, 2, hessian, spec, {});
    } catch (const Error& e) {
      return e.code();
    }
    return ErrorCode::cancelled;
  };
  EXPECT_EQ(
      code_of({.mode = "nf4", .bits = 4, .group_size = 32}),
      ErrorCode::not_supported);
  EXPECT_EQ(code_of(affine(4, 96)), ErrorCode::invalid_argument);
  weight[7] = INFINITY;
  EXPECT_EQ(code_of(affine(4, 64)), ErrorCode::numeric);
}

}  // namespace
}  // namespace pennyweight
