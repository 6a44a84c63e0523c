#include "ops/ops_test.h"
#include "core/error.h"

// The CPU's primitives against the same functions made of MLX's own ops in
// float32, on shapes that reach them lazily, strided and empty. How exact the
// kernels are is for tests/kernels.

namespace pennyweight::ops {

namespace {

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

TEST_P(Ops, GramAdd) {
  const auto type = GetParam();
  // More rows than one product of the kernel takes, and a ragged width.
  const int rows = 2100;
  const auto a = random({3, rows / 3, 37}, type, 1);
  const auto b = random({3, rows / 3, 64}, type, 2);
  const auto sum = random({37, 64}, mx::float32, 3);
  const auto flat = [&](const mx::array& x) {
    return mx::reshape(wide(x), {rows, -1});
  };
  const auto exact = mx::add(sum, mx::matmul(mx::transpose(flat(a)), flat(b)));
  // Products are exact in float32 and so is the result's type.
  expect_close(gram_add(sum, {a}, b), exact, mx::float32, 0, rows);
  // Of rows that are not contiguous, and in a sum of its own.
  const auto part = mx::slice(a, {0, 0, 5}, {3, rows / 3, 37});
  const auto zero = mx::zeros({32, 32});
  const auto flat_part = flat(part);
  expect_close(
      gram_add(zero, {part}, part),
      mx::matmul(mx::transpose(flat_part), flat_part),
      mx::float32,
      0,
      rows);
  EXPECT_EQ(mx::sum(mx::abs(zero)).item<float>(), 0);
  EXPECT_THROW(gram_add(zero, {a}, b), Error);
  EXPECT_THROW(gram_add(zero, {}, b), Error);
}

TEST_P(Ops, GramAddOfSeveral) {
  const auto type = GetParam();
  // Wide enough for several bands of the symmetric product.
  const int rows = 300;
  const int wide_columns = 600;
  const auto b = random({rows, wide_columns}, type, 1);
  const auto a = random({rows, 19}, type, 2);
  const auto half = random({wide_columns, wide_columns}, mx::float32, 3);
  const auto square = mx::add(half, mx::transpose(half));
  const auto other = random({19, wide_columns}, mx::float32, 4);
  const auto sum = mx::concatenate({other, square}, 0);
  const auto product = [&](const mx::array& x) {
    return mx::matmul(mx::transpose(wide(x)), wide(b));
  };
  const auto exact = mx::add(sum, mx::concatenate({product(a), product(b)}, 0));
  const auto result = gram_add(sum, {a, b}, b);
  expect_close(result, exact, mx::float32, 0, rows);
  const auto gram = mx::slice(result, {19, 0}, {19 + 600, 600});
  EXPECT_TRUE(mx::array_equal(gram, mx::transpose(gram)).item<bool>());
}

TEST_P(Ops, MagnitudesAdd) {
  const auto type = GetParam();
  const int rows = 300;
  const auto x = random({3, rows / 3, 1100}, type, 1);
  const auto sum = mx::abs(random({1100}, mx::float32, 2));
  const auto flat = mx::reshape(wide(x), {rows, -1});
  const auto exact = mx::add(sum, mx::sum(mx::abs(flat), 0));
  expect_close(magnitudes_add(sum, x), exact, mx::float32, 0, rows);
  const auto part = mx::slice(x, {0, 0, 5}, {3, rows / 3, 37});
  const auto exact_part =
      mx::sum(mx::abs(mx::reshape(wide(mx::contiguous(part)), {rows, -1})), 0);
  expect_close(
      magnitudes_add(mx::zeros({32}), part), exact_part, mx::float32, 0, rows);
  EXPECT_THROW(magnitudes_add(mx::zeros({31}), part), Error);
}

TEST_P(Ops, Difference) {
  const auto type = GetParam();
  const auto a = random({3, 40000}, mx::float32, 1);
  const auto b = random({40000, 3}, mx::float32, 2);
  const auto exact = mx::astype(mx::subtract(a, mx::transpose(b)), type);
  EXPECT_TRUE(mx::array_equal(difference(a, mx::transpose(b), type), exact)
                  .item<bool>());
  EXPECT_THROW(difference(a, b, type), Error);
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
      const double sums = mlx_roundings(256);
      expect_close(quantized_linear(x, weight), product, type, 2 + sums, 256);
      expect_close(
          quantized_linear_add(residual, x, weight),
          mx::add(residual, product),
          type,
          1 + sums,
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
      // MLX's fallback takes float32 sines of angles of up to 40, and of a
      // narrower type rounds what is scaled, sine and cosine, and two products.
      const double roundings = 1 + mlx_roundings(5);
      expect_close(
          rope(x, table, 31),
          mlx_path::rope(wide(x), table, 31),
          type,
          roundings,
          32);
      const auto turned =
          mx::transpose(random({2, 3, 9, 32}, type, 2), {0, 2, 1, 3});
      expect_close(
          rope(turned, table),
          mlx_path::rope(wide(turned), table, 0),
          type,
          roundings,
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

TEST_P(Ops, SwigluSoftmax) {
  const auto type = GetParam();
  const auto gate = random({3, 4, 50}, type, 1, 3);
  const auto up = random({3, 4, 50}, type, 2);
  expect_close(
      swiglu(gate, up), mlx_path::swiglu(wide(gate), wide(up)), type, 1, 16);
  expect_close(ops::softmax(gate), mlx_path::softmax(wide(gate)), type, 1, 16);
  // The last use of both: written into the memory of one of them.
  expect_close(
      swiglu(mx::add(gate, gate), mx::add(up, up)),
      mlx_path::swiglu(wide(mx::add(gate, gate)), wide(mx::add(up, up))),
      type,
      1,
      16);
}

INSTANTIATE_OPS_TEST(Ops);

}  // namespace

}  // namespace pennyweight::ops
