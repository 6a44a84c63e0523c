#include "ops/rounding/pack.h"

#include <gtest/gtest.h>
#include <mlx/ops.h>
#include <mlx/random.h>
#include <mlx/transforms.h>

#include "format/quant_spec.h"
#include "ops/rounding/quantize.h"
#include "support/expect_error.h"
#include "support/unpack.h"

namespace pennyweight {

namespace {

constexpr int kWidths[] = {2, 3, 4, 5, 6, 8};

mx::array random_codes(int bits, const mx::Shape& shape) {
  auto key = mx::random::key(static_cast<uint64_t>(bits));
  return mx::astype(
      mx::random::randint(0, 1 << bits, shape, mx::int32, key), mx::uint8);
}

}  // namespace

TEST(Pack, GoesThereAndBack) {
  for (int bits : kWidths) {
    auto codes = random_codes(bits, {3, 5, 96});
    auto packed = pack_codes(codes, bits);
    EXPECT_EQ(packed.shape(), (mx::Shape{3, 5, 3 * bits}));
    EXPECT_EQ(packed.dtype(), mx::uint32);
    EXPECT_TRUE(
        mx::array_equal(testing::unpacked(packed, bits), codes).item<bool>())
        << bits;
  }
}

// With scale 1 and bias 0 MLX dequantizes a code to itself.
TEST(Pack, IsTheLayoutThatMlxReads) {
  for (int bits : kWidths) {
    auto codes = random_codes(bits, {4, 128});
    auto values = mx::dequantize(
        pack_codes(codes, bits),
        mx::ones({4, 2}),
        mx::zeros({4, 2}),
        64,
        bits,
        "affine");
    EXPECT_TRUE(
        mx::array_equal(values, mx::astype(codes, mx::float32)).item<bool>())
        << bits;
  }
}

TEST(Pack, UnpacksWhatQuantizeWrote) {
  for (int bits : kWidths) {
    auto key = mx::random::key(9);
    auto weight = mx::random::normal({16, 64}, mx::float32, key);
    auto packed = quantize(weight, {"affine", bits, 64});
    auto codes = mx::astype(testing::unpacked(packed.codes, bits), mx::float32);
    auto values = mx::add(mx::multiply(codes, packed.scales), *packed.biases);
    auto expected = mx::dequantize(
        packed.codes, packed.scales, packed.biases, 64, bits, "affine");
    EXPECT_TRUE(mx::array_equal(values, expected).item<bool>()) << bits;
  }
}

TEST(Pack, TransposedCodesAreReadInOrder) {
  auto codes = random_codes(4, {32, 6});
  auto packed = pack_codes(mx::transpose(codes), 4);
  EXPECT_TRUE(
      mx::array_equal(testing::unpacked(packed, 4), mx::transpose(codes))
          .item<bool>());
}

TEST(Pack, RefusesWhatFillsNoWords) {
  testing::expect_error(ErrorCode::invalid_argument, "words", [] {
    pack_codes(mx::zeros({2, 24}, mx::uint8), 3);
  });
  testing::expect_error(ErrorCode::invalid_argument, "uint8", [] {
    pack_codes(mx::zeros({2, 32}), 4);
  });
  testing::expect_error(ErrorCode::invalid_argument, "bits", [] {
    pack_codes(mx::zeros({2, 32}, mx::uint8), 9);
  });
}

}  // namespace pennyweight
