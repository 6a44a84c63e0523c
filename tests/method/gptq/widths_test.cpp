#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include "kernels/quant_codes.h"
#include "method/gptq/gptq_naive.h"
#include "ops/rounding/quantize.h"

namespace pennyweight {
namespace {

class GptqWidths : public ::testing::TestWithParam<std::tuple<int, int>> {};

TEST_P(GptqWidths, PlainIsThePapersAlgorithm) {
  const auto [bits, group] = GetParam();
  const int64_t rows = 70, n = 384;
  const auto weight = normal_weight(rows, n, 1);
  const auto hessian = correlated_hessian(n, 2);
  GptqOptions options;
  options.plain = true;
  const auto result =
      quantize(weight, rows, hessian, affine(bits, group), options, DType::f32);
  const auto naive =
      naive_gptq(weight, rows, hessian, n, bits, group, options.damp);
  // Codes differ only where float32 decides a tie otherwise, after which the
  // rest of that row may differ; the losses must agree.
  int64_t differ = 0;
  for (size_t i = 0; i < naive.codes.size(); ++i) {
    differ += naive.codes[i] != int(result.codes[i]);
  }
  EXPECT_LT(double(differ), 0.05 * double(naive.codes.size()));
  const double loss =
      naive_loss(weight, values_of(result, n, group), hessian, 0, rows, n);
  const double expected = naive_loss(weight, naive.values, hessian, 0, rows, n);
  EXPECT_NEAR(loss, expected, 0.02 * expected);
  EXPECT_NEAR(result.figures.loss, loss, 1e-3 * loss);
}

TEST_P(GptqWidths, EveryStageLowersTheLoss) {
  const auto [bits, group] = GetParam();
  const int64_t rows = 70, n = 384;
  const auto weight = normal_weight(rows, n, 3);
  const auto hessian = correlated_hessian(n, 4);
  const auto loss_with = [&](bool refit, bool descend, int rounds) {
    GptqOptions options;
    options.refit = refit;
    options.descend = descend;
    options.rounds = rounds;
    const auto result =
        quantize(weight, rows, hessian, affine(bits, group), options);
    const double loss =
        naive_loss(weight, values_of(result, n, group), hessian, 0, rows, n);
    EXPECT_NEAR(result.figures.loss, loss, 2e-3 * loss);
    for (uint8_t code : result.codes) {
      EXPECT_LT(int(code), 1 << bits);
    }
    return loss;
  };
  const double rounded = loss_with(false, false, 0);
  const double refitted = loss_with(true, false, 1);
  const double descended = loss_with(false, true, 1);
  const double all = loss_with(true, true, 2);
  if (bits < 6) {
    EXPECT_LT(refitted, rounded);
  } else {  // a bfloat16 scale's last bit moves the top code by half a step
    EXPECT_LE(refitted, rounded);
  }
  EXPECT_LT(descended, rounded);
  EXPECT_LT(all, std::min(refitted, descended));
  const double nearest_loss =
      naive_loss(weight, nearest(weight, bits, group), hessian, 0, rows, n);
  EXPECT_LT(rounded, nearest_loss);
}

INSTANTIATE_TEST_SUITE_P(
    AllWidths,
    GptqWidths,
    ::testing::Combine(
        ::testing::Values(2, 3, 4, 5, 6, 8),
        ::testing::Values(32, 64, 128)),
    [](const auto& info) {
      return "bits" + std::to_string(std::get<0>(info.param)) + "group" +
          std::to_string(std::get<1>(info.param));
    });

class GptqFpModes : public ::testing::TestWithParam<QuantSpec> {};

TEST_P(GptqFpModes, LowersTheLossOfMlxsRounding) {
  const QuantSpec spec = GetParam();
  const int64_t rows = 20, n = 256;
  const auto weight = normal_weight(rows, n, 32);
  const auto& hessian = correlated_hessian(n, 33);
  const auto mode = spec.mode == "mxfp4" ? kernels::QuantMode::mxfp4
      : spec.mode == "mxfp8"             ? kernels::QuantMode::mxfp8
                                         : kernels::QuantMode::nvfp4;
  const float* levels = kernels::code_values(mode);
  const float* scales = mode == kernels::QuantMode::nvfp4
      ? kernels::e4m3_values()
      : kernels::e8m0_values();
  const auto values_by_code = [&](const GptqResult& result) {
    Doubles values(result.codes.size());
    for (size_t i = 0; i < values.size(); ++i) {
      const size_t group = i / size_t(spec.group_size);
      values[i] = double(levels[result.codes[i]]) *
          double(scales[result.scale_codes[group]]);
      EXPECT_EQ(result.scales[group], scales[result.scale_codes[group]]);
    }
    return values;
  };
  // What MLX writes, bit for bit.
  const auto rounded = quantize(
      mx::array(weight.data(), {int(rows), int(n)}, mx::float32), spec);
  auto dense = ops::dequantize(rounded, mx::float32);
  dense.eval();
  const Doubles mlx(dense.data<float>(), dense.data<float>() + weight.size());
  const double nearest_loss = naive_loss(weight, mlx, hessian, 0, rows, n);

  std::vector<double> losses;
  for (int stage = 0; stage < 3; ++stage) {
    GptqOptions options;
    options.plain = stage == 0;
    options.rounds = stage == 1 ? 0 : 2;
    const auto result = quantize(weight, rows, hessian, spec, options);
    EXPECT_TRUE(result.biases.empty());
    const double loss =
        naive_loss(weight, values_by_code(result), hessian, 0, rows, n);
    EXPECT_NEAR(result.figures.loss, loss, 2e-3 * loss);
    EXPECT_NEAR(result.figures.loss_nearest, nearest_loss, 1e-3 * nearest_loss);
    losses.push_back(loss);
  }
  EXPECT_LT(losses[0], 0.5 * nearest_loss);
  EXPECT_LT(losses[1], losses[0]);
  EXPECT_LT(losses[2], losses[1]);
}

INSTANTIATE_TEST_SUITE_P(
    Modes,
    GptqFpModes,
    ::testing::Values(
        QuantSpec{"mxfp4", 4, 32},
        QuantSpec{"mxfp8", 8, 32},
        QuantSpec{"nvfp4", 4, 16}),
    [](const auto& info) { return info.param.mode; });

}  // namespace
}  // namespace pennyweight
