#include "ops/ops.h"

#include <gtest/gtest.h>
#include <mlx/mlx.h>

#include <cmath>
#include <functional>

#include "core/error.h"
#include "ops/mlx_path.h"

// The CPU's primitives against the same functions made of MLX's own ops in
// float32, on shapes that reach them lazily, strided and empty. How exact the
// kernels are is for tests/kernels.

namespace pennyweight::ops {

namespace {

double unit(mx::Dtype dtype) {
  return dtype == mx::float32 ? 0x1p-24
      : dtype == mx::bfloat16 ? 0x1p-8
                              : 0x1p-11;
}

/// Both sides sum `depth` terms in float32, in orders of their own, each of
/// whose additions may cost half a unit of what is summed so far: of the
/// largest expected magnitude. Ours is then rounded to `type`, as some of what
/// went in was: `roundings` in all.
void expect_close(
    mx::array actual,
    mx::array expected,
    mx::Dtype type,
    double roundings,
    int depth) {
  ASSERT_EQ(actual.shape(), expected.shape());
  actual = mx::astype(actual, mx::float32);
  expected = mx::astype(expected, mx::float32);
  const float largest = mx::max(mx::abs(expected)).item<float>();
  const float error =
      mx::max(mx::abs(mx::subtract(actual, expected))).item<float>();
  const double relative = roundings * unit(type) + 2 * depth * 0x1p-24;
  EXPECT_LE(error, relative * largest);
}

mx::array
random(const mx::Shape& shape, mx::Dtype dtype, int seed, float scale = 1) {
  return mx::astype(
      mx::multiply(
          mx::random::normal(shape, mx::random::key(uint64_t(seed))),
          mx::array(scale)),
      dtype);
}

mx::array wide(const mx::array& x) {
  return mx::astype(x, mx::float32);
}

ErrorCode code_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "no Error";
  return ErrorCode::cancelled;
}

constexpr int kDepth = 96;
class Ops : public testing::TestWithParam<mx::Dtype> {
 protected:
  void SetUp() override {
    mx::set_default_device(mx::Device::cpu);
  }
};

TEST_P(Ops, Linear) {
  const auto type = GetParam();
  const auto x = random({2, 7, kDepth}, type, 1);
  const auto weight = random({33, kDepth}, type, 2);
  const auto bias = random({33}, type, 3);
  const auto exact =
      mlx_path::linear(wide(x), wide(weight), wide(bias), mx::float32);
  expect_close(linear(x, weight, bias), exact, type, 1, kDepth);
  const auto float_out = linear(x, weight, bias, mx::float32);
  EXPECT_EQ(float_out.dtype(), mx::float32);
  expect_close(float_out, exact, mx::float32, 1, kDepth);
}

TEST_P(Ops, LinearOfTransposedAndSlicedInputs) {
  const auto type = GetParam();
  const auto x = random({kDepth, 9}, type, 1);
  const auto weight = random({2 * kDepth, 66}, type, 2);
  const auto strided =
      mx::transpose(mx::slice(weight, {kDepth, 0}, {2 * kDepth, 66}, {1, 2}));
  expect_close(
      linear(mx::transpose(x), strided),
      mx::matmul(wide(mx::transpose(x)), wide(mx::transpose(strided))),
      type,
      1,
      kDepth);
  const auto columns =
      mx::slice(random({5, 3 * kDepth}, type, 4), {0, kDepth}, {5, 2 * kDepth});
  const auto plain = random({8, kDepth}, type, 5);
  expect_close(
      linear(columns, plain),
      mx::matmul(wide(columns), wide(mx::transpose(plain))),
      type,
      1,
      kDepth);
}

TEST_P(Ops, LinearOfOneRowAndOfNone) {
  const auto type = GetParam();
  const auto weight = random({33, kDepth}, type, 2);
  const auto x = random({kDepth}, type, 1);
  const auto one = linear(x, weight);
  EXPECT_EQ(one.shape(), mx::Shape{33});
  expect_close(one, mx::matmul(wide(weight), wide(x)), type, 1, kDepth);
  const auto none = linear(mx::zeros({0, kDepth}, type), weight);
  mx::eval(none);
  EXPECT_EQ(none.shape(), (mx::Shape{0, 33}));
}

TEST_P(Ops, LinearAdd) {
  const auto type = GetParam();
  const auto x = random({3, kDepth}, type, 1);
  const auto weight = random({40, kDepth}, type, 2);
  const auto exact = mx::add(
      mx::multiply(mx::array(2.0f), mx::ones({3, 40})),
      mx::matmul(wide(x), wide(mx::transpose(weight))));
  {
    // Free to be overwritten: nothing else holds the product.
    auto sum =
        linear_add(mx::multiply(mx::array(2.0f), mx::ones({3, 40})), x, weight);
    expect_close(sum, exact, mx::float32, 1, kDepth);
  }
  // Not free: `residual` must stay as it is, and both may be read.
  const auto residual = mx::multiply(mx::array(2.0f), mx::ones({3, 40}));
  const auto sum = linear_add(residual, x, weight);
  const auto both = mx::add(sum, residual);
  mx::eval(both);
  expect_close(both, mx::add(exact, mx::array(2.0f)), mx::float32, 1, kDepth);
  EXPECT_TRUE(mx::all(mx::equal(residual, mx::array(2.0f))).item<bool>());
}

TEST_P(Ops, QuantizedLinearAndDequantize) {
  const auto type = GetParam();
  struct Format {
    const char* mode;
    int group, bits;
  };
  for (const auto& [mode, group, bits] :
       {Format{"affine", 32, 2},
        Format{"affine", 64, 3},
        Format{"affine", 128, 4},
        Format{"affine", 64, 5},
        Format{"affine", 64, 6},
        Format{"affine", 32, 8},
        Format{"mxfp4", 32, 4},
        Format{"mxfp8", 32, 8},
        Format{"nvfp4", 16, 4}}) {
    const auto dense = random({24, 256}, type, 7);
    const auto parts = mx::quantize(dense, group, bits, mode);
    std::optional<mx::array> biases;
    if (parts.size() > 2) {
      biases = parts[2];
    }
    const QuantizedWeight weight{parts[0], parts[1], biases, group, bits, mode};
    // MLX's own dequantize, from scales that float32 holds exactly.
    const auto exact = mlx_path::dequantize(weight, mx::float32);
    expect_close(dequantize(weight, mx::float32), exact, mx::float32, 1, 1);
    expect_close(dequantize(weight, type), exact, type, 1, 1);
    for (int rows : {1, 6}) {
      const auto x = random({rows, 256}, type, 8);
      const auto product = mx::matmul(wide(x), mx::transpose(exact));
      const auto residual = random({rows, 24}, mx::float32, 9);
      // 256 weights rounded to x's type, then the result.
      expect_close(quantized_linear(x, weight), product, type, 2, 256);
      expect_close(
          quantized_linear_add(residual, x, weight),
          mx::add(residual, product),
          type,
          1,
          256);
    }
  }
}

TEST_P(Ops, QuantizedLinearOfSlicedRows) {
  const auto type = GetParam();
  const auto parts = mx::quantize(random({64, 128}, type, 7), 64, 4);
  const auto cut = [](const mx::array& x) {
    return mx::slice(x, {16, 0}, {48, x.shape(1)});
  };
  const QuantizedWeight whole{parts[0], parts[1], parts[2], 64, 4, "affine"};
  const QuantizedWeight part{
      cut(parts[0]), cut(parts[1]), cut(parts[2]), 64, 4, "affine"};
  const auto x = random({5, 128}, type, 8);
  expect_close(
      quantized_linear(x, part),
      mx::slice(quantized_linear(x, whole), {0, 16}, {5, 48}),
      type,
      1,
      128);
}

TEST_P(Ops, RmsNorm) {
  const auto type = GetParam();
  const auto x = random({2, 5, 70}, mx::float32, 1, 3);
  const auto weight = random({70}, type, 2);
  const auto exact = mx::fast::rms_norm(x, wide(weight), 1e-5f);
  expect_close(rms_norm(x, weight, 1e-5f), exact, mx::float32, 1, 70);
  const auto narrow = rms_norm(x, weight, 1e-5f, type);
  EXPECT_EQ(narrow.dtype(), type);
  expect_close(narrow, exact, type, 1, 70);
}

TEST_P(Ops, Rope) {
  const auto type = GetParam();
  for (bool traditional : {false, true}) {
    for (int dims : {16, 32}) {
      const auto positions = mx::arange(dims / 2);
      const RopeTable table{
          mx::power(
              mx::array(1e4f),
              mx::divide(
                  mx::negative(mx::astype(positions, mx::float32)),
                  mx::array(dims / 2.0f))),
          dims,
          traditional,
          1.5f};
      const auto x = random({2, 9, 3, 32}, type, 1);
      // MLX's fallback takes float32 sines of angles of up to 40.
      expect_close(
          rope(x, table, 31), mlx_path::rope(wide(x), table, 31), type, 1, 32);
      const auto turned =
          mx::transpose(random({2, 3, 9, 32}, type, 2), {0, 2, 1, 3});
      expect_close(
          rope(turned, table),
          mlx_path::rope(wide(turned), table, 0),
          type,
          1,
          32);
    }
  }
}

TEST_P(Ops, Attention) {
  const auto type = GetParam();
  const float scale = 0.2f;
  for (int window : {0, 5, 30}) {
    for (int length : {1, 20, 40}) {
      const auto q = random({2, length, 6, 24}, type, 1);
      const auto k = random({2, 40, 2, 24}, type, 2);
      const auto v = random({2, 40, 2, 24}, type, 3);
      const AttentionOptions options{scale, true, window};
      // Queries and weights are rounded to bfloat16 within, each of which
      // moves a weighted mean by a few units.
      expect_close(
          attention(q, k, v, options),
          mlx_path::attention(wide(q), wide(k), wide(v), options),
          type,
          4,
          64);
    }
  }
}

TEST_P(Ops, AttentionOfOneFusedProjection) {
  const auto type = GetParam();
  const auto qkv = random({1, 12, 5, 16}, type, 1);
  const auto part = [&](int from, int to) {
    return mx::slice(qkv, {0, 0, from, 0}, {1, 12, to, 16});
  };
  const AttentionOptions options{.scale = 0.25f};
  const auto q = part(0, 3), k = part(3, 4), v = part(4, 5);
  expect_close(
      attention(q, k, v, options),
      mlx_path::attention(wide(q), wide(k), wide(v), options),
      type,
      4,
      64);
}

TEST_P(Ops, SwigluSoftmaxLogSumExp) {
  const auto type = GetParam();
  const auto gate = random({3, 4, 50}, type, 1, 3);
  const auto up = random({3, 4, 50}, type, 2);
  expect_close(
      swiglu(gate, up), mlx_path::swiglu(wide(gate), wide(up)), type, 1, 16);
  expect_close(ops::softmax(gate), mlx_path::softmax(wide(gate)), type, 1, 16);
  const auto sums = ops::logsumexp(gate);
  EXPECT_EQ(sums.dtype(), mx::float32);
  expect_close(sums, mlx_path::logsumexp(wide(gate)), mx::float32, 1, 16);
  // The last use of both: written into the memory of one of them.
  expect_close(
      swiglu(mx::add(gate, gate), mx::add(up, up)),
      mlx_path::swiglu(wide(mx::add(gate, gate)), wide(mx::add(up, up))),
      type,
      1,
      16);
}

TEST_P(Ops, Scores) {
  const auto type = GetParam();
  const int rows = 37, vocabulary = 700;
  const auto x = random({rows, kDepth}, type, 1, 0.3f);
  const auto other = random({rows, kDepth}, type, 2, 0.02f);
  const auto weight = random({vocabulary, kDepth}, type, 3);
  const auto reference_x = mx::add(x, other);
  const auto targets = mx::astype(
      mx::remainder(
          mx::multiply(mx::arange(rows), mx::array(53)), mx::array(vocabulary)),
      mx::int32);
  const auto rows_of = [&](int from, int to) {
    return mx::slice(weight, {from, 0}, {to, kDepth});
  };
  auto fused = score_start(rows);
  auto tiled = score_start(rows);
  auto plain = score_start(rows);
  const int tiles[] = {0, 64, 65, 600, vocabulary};
  for (int i = 0; i + 1 < 5; ++i) {
    const auto part = rows_of(tiles[i], tiles[i + 1]);
    const auto logits = linear(x, part, std::nullopt, mx::float32);
    const auto beside = linear(reference_x, part, std::nullopt, mx::float32);
    fused = score_linear(
        fused, {x, part}, HeadRows{reference_x, part}, targets, tiles[i]);
    tiled = score_update(tiled, logits, beside, targets, tiles[i]);
    plain = mlx_path::score_update(plain, logits, beside, targets, tiles[i]);
  }
  const auto expected = mlx_path::score_finish(plain);
  for (const auto& state : {fused, tiled}) {
    const auto scores = score_finish(state);
    const auto near = [](const mx::array& a, const mx::array& b) {
      return mx::max(mx::abs(mx::subtract(a, b))).item<float>();
    };
    // MLX's side sums and subtracts in float32 at a size of about 10.
    EXPECT_LE(near(scores.nll, expected.nll), 1e-5);
    EXPECT_LE(near(scores.reference_nll, expected.reference_nll), 1e-5);
    EXPECT_LE(near(scores.kl, expected.kl), 1e-5);
    EXPECT_GT(mx::min(scores.kl).item<float>(), 0);
    EXPECT_TRUE(mx::array_equal(scores.agrees, expected.agrees).item<bool>());
    EXPECT_FALSE(
        mx::all(mx::equal(scores.nll, scores.reference_nll)).item<bool>());
  }
  // A state that is still held is not written to.
  const auto again = score_start(rows);
  const auto logits = linear(x, weight, std::nullopt, mx::float32);
  const auto one = score_update(again, logits, std::nullopt, targets, 0);
  const auto two = score_update(one, logits, std::nullopt, targets, 0);
  mx::eval(one);
  const auto before = mx::contiguous(mx::copy(one));
  mx::eval(before);
  mx::eval(two);
  EXPECT_TRUE(mx::array_equal(one, before).item<bool>());
  const auto alone = score_finish(one);
  EXPECT_EQ(mx::max(mx::abs(alone.kl)).item<float>(), 0);
  EXPECT_TRUE(mx::all(alone.agrees).item<bool>());
}

INSTANTIATE_TEST_SUITE_P(
    Types,
    Ops,
    testing::Values(mx::float32, mx::bfloat16, mx::float16),
    [](const auto& type) {
      return std::string(
          type.param == mx::float32        ? "f32"
              : type.param == mx::bfloat16 ? "bf16"
                                           : "f16");
    });

TEST(OpsErrors, NameWhatDoesNotFit) {
  const auto x = mx::zeros({2, 8});
  const auto weight = mx::zeros({4, 6});
  try {
    linear(x, weight);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_STREQ(
        error.what(),
        "[linear] x float32 (2,8) and the weight float32 (4,6) do not share "
        "an input width");
  }
  const auto invalid = ErrorCode::invalid_argument;
  const auto square = mx::zeros({8, 8});
  EXPECT_EQ(
      code_of([&] {
        linear(mx::zeros({2, 8}, mx::int32), square);
      }),
      invalid);
  EXPECT_EQ(code_of([&] { linear(x, square, mx::zeros({7})); }), invalid);
  EXPECT_EQ(code_of([&] { linear(x, square, {}, mx::int8); }), invalid);
  EXPECT_EQ(
      code_of([&] {
        linear_add(mx::zeros({2, 7}), x, square);
      }),
      invalid);
  EXPECT_EQ(code_of([&] { rms_norm(x, mx::zeros({7}), 0); }), invalid);
  EXPECT_EQ(code_of([&] { swiglu(x, square); }), invalid);
  EXPECT_EQ(code_of([&] { ops::softmax(mx::zeros({2, 0})); }), invalid);
  EXPECT_EQ(
      code_of([&] {
        rope(mx::zeros({1, 2, 3, 8}), {mx::zeros({3}), 8});
      }),
      invalid);
  EXPECT_EQ(
      code_of([&] {
        const auto q = mx::zeros({1, 2, 3, 8});
        const auto k = mx::zeros({1, 2, 2, 8});
        attention(q, k, k, {});
      }),
      invalid);
  EXPECT_EQ(
      code_of([&] {
        const QuantizedWeight packed{
            mx::zeros({4, 8}, mx::uint32),
            mx::zeros({4, 2}),
            std::nullopt,
            32,
            4,
            "affine"};
        dequantize(packed, mx::float32);
      }),
      invalid);
  EXPECT_EQ(
      code_of([&] {
        score_update(
            score_start(2), x, mx::zeros({2, 7}), mx::zeros({2}, mx::int32), 0);
      }),
      invalid);
}

}  // namespace

}  // namespace pennyweight::ops
