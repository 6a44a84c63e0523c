#include <gtest/gtest.h>
#include <mlx/ops.h>
#include <mlx/random.h>
#include <mlx/transforms.h>

#include "format/quant_spec.h"
#include "ops/rounding/quantize.h"
#include "support/expect_error.h"

namespace pennyweight {

namespace {

struct Case {
  QuantSpec spec;
  mx::Dtype dtype;
};

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (mx::Dtype dtype : {mx::float32, mx::bfloat16, mx::float16}) {
    for (int bits : {2, 3, 4, 5, 6, 8}) {
      for (int group : {32, 64, 128}) {
        cases.push_back({{"affine", bits, group}, dtype});
      }
    }
    cases.push_back({{"mxfp4", 4, 32}, dtype});
    cases.push_back({{"mxfp8", 8, 32}, dtype});
    cases.push_back({{"nvfp4", 4, 16}, dtype});
  }
  return cases;
}

std::string case_name(const ::testing::TestParamInfo<Case>& info) {
  const auto& [spec, dtype] = info.param;
  std::string type = dtype == mx::float32 ? "f32"
      : dtype == mx::bfloat16             ? "bf16"
                                          : "f16";
  return spec.mode + "_" + std::to_string(spec.bits) + "_g" +
      std::to_string(spec.group_size) + "_" + type;
}

bool same_bits(const mx::array& a, const mx::array& b) {
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) {
    return false;
  }
  return mx::array_equal(mx::view(a, mx::uint8), mx::view(b, mx::uint8))
      .item<bool>();
}

class QuantizeTest : public ::testing::TestWithParam<Case> {
 protected:
  // What MLX itself writes is the definition.
  void expect_as_mlx(const mx::array& weight) {
    const auto& spec = GetParam().spec;
    auto cast = mx::astype(weight, GetParam().dtype);
    auto expected = mx::quantize(cast, spec.group_size, spec.bits, spec.mode);
    auto got = quantize(cast, spec);
    EXPECT_TRUE(same_bits(got.codes, expected[0]));
    EXPECT_TRUE(same_bits(got.scales, expected[1]));
    ASSERT_EQ(got.biases.has_value(), expected.size() > 2);
    if (got.biases) {
      EXPECT_TRUE(same_bits(*got.biases, expected[2]));
    }
    EXPECT_EQ(got.bits, spec.bits);
    EXPECT_EQ(got.group_size, spec.group_size);
    EXPECT_EQ(got.mode, spec.mode);
  }
};

TEST(Quantize, CountsTheBytesThatMlxStores) {
  for (int bits : {2, 3, 4, 5, 6, 8}) {
    for (int group : {32, 64, 128}) {
      auto spec = make_quant_spec("affine", bits, group);
      auto w = mx::astype(mx::random::normal({24, 256}), mx::bfloat16);
      auto packed = quantize(w, spec);
      auto bytes = packed.codes.nbytes() + packed.scales.nbytes() +
          packed.biases->nbytes();
      EXPECT_EQ(quantized_bytes(spec, 24, 256, 2), bytes);
    }
  }
  for (const char* mode : {"mxfp4", "mxfp8", "nvfp4"}) {
    auto spec = make_quant_spec(mode, {}, {});
    auto packed =
        quantize(mx::astype(mx::random::normal({24, 256}), mx::bfloat16), spec);
    EXPECT_FALSE(packed.biases);
    EXPECT_EQ(
        quantized_bytes(spec, 24, 256, 2),
        packed.codes.nbytes() + packed.scales.nbytes());
  }
}

TEST(Quantize, RowsThatNoGroupFitsAreRefused) {
  EXPECT_FALSE(fits({"affine", 4, 64}, 172));
  EXPECT_THROW(quantize(mx::zeros({4, 172}), {"affine", 4, 64}), Error);
}

}  // namespace

TEST_P(QuantizeTest, NormalWeights) {
  auto key = mx::random::key(3);
  expect_as_mlx(mx::multiply(
      mx::random::normal({96, 256}, mx::float32, key), mx::array(0.02f)));
}

// Each row in a different binade, so that scales take every exponent.
TEST_P(QuantizeTest, AllMagnitudes) {
  int lowest = GetParam().dtype == mx::float16 ? -20 : -120;
  int rows = GetParam().dtype == mx::float16 ? 34 : 240;
  auto exponent = mx::reshape(
      mx::astype(mx::arange(lowest, lowest + rows), mx::float32), {rows, 1});
  auto key = mx::random::key(4);
  auto noise = mx::random::uniform(-1.9f, 1.9f, {rows, 128}, mx::float32, key);
  expect_as_mlx(mx::multiply(noise, mx::power(mx::array(2.0f), exponent)));
}

// Where many values sit half way between two codes.
TEST_P(QuantizeTest, Ties) {
  auto steps = mx::astype(mx::arange(-512, 512), mx::float32);
  expect_as_mlx(
      mx::reshape(mx::multiply(steps, mx::array(1.0f / 64)), {8, 128}));
  auto coarse = mx::remainder(steps, mx::array(31.0f));
  expect_as_mlx(mx::reshape(coarse, {8, 128}));
}

TEST_P(QuantizeTest, DegenerateGroups) {
  expect_as_mlx(mx::zeros({2, 128}));
  expect_as_mlx(mx::negative(mx::zeros({2, 128})));
  expect_as_mlx(mx::full({2, 128}, 0.3f));
  expect_as_mlx(mx::full({2, 128}, -0.3f));
  expect_as_mlx(mx::full({2, 128}, 1e-9f));
  auto one = mx::zeros({2, 128});
  one = mx::slice_update(
      one, mx::full({1, 1}, -5.0f), mx::Shape{0, 7}, mx::Shape{1, 8});
  expect_as_mlx(one);
}

// A view that is not contiguous, and a stack of experts.
TEST_P(QuantizeTest, Layouts) {
  auto key = mx::random::key(5);
  expect_as_mlx(mx::transpose(mx::random::normal({128, 24}, key)));
  expect_as_mlx(mx::random::normal({3, 8, 128}, key));
}

INSTANTIATE_TEST_SUITE_P(
    All,
    QuantizeTest,
    ::testing::ValuesIn(all_cases()),
    case_name);

// Every 16-bit pattern as an element beside a fixed largest one.
TEST(QuantizeElements, AllBfloat16Values) {
  std::vector<uint16_t> bits;
  for (uint32_t i = 0; i < 65536; ++i) {
    if ((i & 0x7f80) != 0x7f80) {  // finite
      bits.push_back(static_cast<uint16_t>(i));
    }
  }
  bits.resize(bits.size() / 128 * 128);
  auto weight = mx::view(
      mx::array(bits.data(), {static_cast<int>(bits.size() / 128), 128}),
      mx::bfloat16);
  for (const char* mode : {"mxfp4", "mxfp8", "nvfp4"}) {
    auto spec = make_quant_spec(mode, {}, {});
    auto expected = mx::quantize(weight, spec.group_size, spec.bits, spec.mode);
    auto got = quantize(weight, spec);
    EXPECT_TRUE(same_bits(got.codes, expected[0])) << mode;
    EXPECT_TRUE(same_bits(got.scales, expected[1])) << mode;
  }
}

TEST(Quantize, RefusesWhatDoesNotFit) {
  testing::expect_error(ErrorCode::invalid_argument, "rows of 172", [] {
    quantize(mx::zeros({4, 172}), {"affine", 4, 64});
  });
  testing::expect_error(ErrorCode::invalid_argument, "floating", [] {
    quantize(mx::zeros({4, 64}, mx::int32), {"affine", 4, 64});
  });
}

}  // namespace pennyweight
