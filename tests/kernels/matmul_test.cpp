#include "kernels/kernel_test.h"

namespace pennyweight::kernels {

namespace {

struct Types {
  DType x, weight, out;
};

const Types kTypes[] = {
    {DType::f32, DType::f32, DType::f32},
    {DType::bf16, DType::bf16, DType::bf16},
    {DType::bf16, DType::bf16, DType::f32},
    {DType::bf16, DType::bf16, DType::f16},
    {DType::f16, DType::f16, DType::f16},
    {DType::f16, DType::f16, DType::f32},
    {DType::f32, DType::bf16, DType::f32},
    {DType::bf16, DType::f32, DType::bf16},
};

struct Size {
  int64_t m, n, k;
};

const Size kSizes[] = {
    {1, 1, 1},
    {1, 70, 64},
    {2, 5, 33},
    {3, 5, 7},
    {4, 33, 100},
    {5, 17, 31},
    {17, 48, 64},
    {64, 96, 128},
    {70, 33, 1030},
    {193, 257, 40},
};

class Matmul : public KernelTest {
 protected:
  struct Case {
    Types types;
    Size size;
    bool bias = false;
    bool residual = false;
    bool in_place = false;
    bool by_depth = false;
    int64_t gap = 0;
  };

  void check(const Case& c) {
    const auto [m, n, k] = c.size;
    const auto x = Tensor::random(c.types.x, m, k, 1, 1.0, c.gap);
    const auto w = c.by_depth
        ? Tensor::random(c.types.weight, k, n, 2, 1.0, c.gap)
        : Tensor::random(c.types.weight, n, k, 2, 1.0, c.gap);
    const auto bias = Tensor::random(c.types.out, 1, n, 3);
    const auto residual = Tensor::random(c.types.out, m, n, 4, 1.0, c.gap);
    Tensor out = residual;
    if (!c.in_place) {
      out = Tensor(c.types.out, m, n, c.gap);
    }
    MatmulArgs args{m, n, k, x.view(), w.view(), {}, {}, out.out(), c.by_depth};
    if (c.bias) {
      args.bias = {bias.data(), bias.type()};
    }
    if (c.residual) {
      args.residual = c.in_place
          ? ConstMatrix{out.data(), out.type(), out.stride()}
          : residual.view();
    }
    kernels().matmul(args);
    out.expect_gaps_untouched();
    const auto what = type_name(c.types.x) + " * " + type_name(c.types.weight) +
        " -> " + type_name(c.types.out) + " " + std::to_string(m) + " x " +
        std::to_string(n) + " x " + std::to_string(k);
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double sum = c.bias ? bias.at(0, j) : 0;
        sum += c.residual ? residual.at(i, j) : 0;
        double magnitude = std::abs(sum);
        for (int64_t l = 0; l < k; ++l) {
          const double term =
              double(x.at(i, l)) * (c.by_depth ? w.at(l, j) : w.at(j, l));
          sum += term;
          magnitude += std::abs(term);
        }
        // A float32 sum of k + 2 terms, in any order, is off by at most
        // (k + 2) roundings of the sum of magnitudes (Higham, 3.1).
        const double slack = double(k + 2) * 0x1p-24 * magnitude;
        expect_close(out.at(i, j), sum, c.types.out, slack, what);
      }
    }
  }
};

TEST_P(Matmul, EveryTypeAndSize) {
  for (const auto& types : kTypes) {
    for (const auto& size : kSizes) {
      check({.types = types, .size = size});
    }
  }
}

TEST_P(Matmul, RowsWithGaps) {
  for (const auto& types : kTypes) {
    check({.types = types, .size = {19, 34, 50}, .gap = 13});
    check({.types = types, .size = {2, 34, 50}, .gap = 13});
  }
}

TEST_P(Matmul, BiasAndResidual) {
  for (const auto& types : kTypes) {
    for (const Size& size : {Size{3, 20, 40}, Size{40, 70, 90}}) {
      check({.types = types, .size = size, .bias = true});
      check({.types = types, .size = size, .residual = true, .gap = 3});
      check(
          {.types = types,
           .size = size,
           .bias = true,
           .residual = true,
           .in_place = true});
    }
  }
}

TEST_P(Matmul, WeightByDepth) {
  for (const auto& types : kTypes) {
    for (const Size& size : {Size{1, 64, 33}, Size{48, 70, 90}}) {
      check({.types = types, .size = size, .by_depth = true, .gap = 5});
    }
  }
}

TEST_P(Matmul, StripsOfRows) {
  for (const auto& types : kTypes) {
    const Size size{200, 100, 70};
    check({.types = types, .size = size, .bias = true});
    check({.types = types, .size = size, .residual = true, .gap = 3});
    check({.types = types, .size = size, .by_depth = true, .gap = 5});
    check(
        {.types = types,
         .size = {64, 576, 40},
         .residual = true,
         .in_place = true});
  }
}

TEST_P(Matmul, DepthInParts) {
  for (const Types& types :
       {Types{DType::f32, DType::f32, DType::f32},
        Types{DType::bf16, DType::bf16, DType::bf16},
        Types{DType::bf16, DType::bf16, DType::f32}}) {
    const Size size{70, 40, 2100};
    check({.types = types, .size = size, .bias = true, .residual = true});
    check({.types = types, .size = size, .by_depth = true});
  }
}

// More rows than sums are kept for, more columns than are packed at a time.
TEST_P(Matmul, LargerThanItsPanels) {
  if (GetParam().choice == Choice::reference) {
    GTEST_SKIP() << "naive";
  }
  const int64_t m = 1100, n = 2050, k = 2100;
  for (DType type : {DType::bf16, DType::f32}) {
    const auto x = Tensor::random(type, m, k, 1);
    const auto w = Tensor::random(type, n, k, 2);
    Tensor out(type, m, n);
    kernels().matmul({m, n, k, x.view(), w.view(), {}, {}, out.out(), false});
    for (int64_t sample = 0; sample < 500; ++sample) {
      const int64_t i = sample * 977 % m, j = sample * 1013 % n;
      double sum = 0, magnitude = 0;
      for (int64_t l = 0; l < k; ++l) {
        const double term = double(x.at(i, l)) * w.at(j, l);
        sum += term;
        magnitude += std::abs(term);
      }
      const double slack = double(k) * 0x1p-24 * magnitude;
      expect_close(out.at(i, j), sum, type, slack, "large");
    }
  }
}

// A float16 product beyond 65504 and one that is exact in float32 only.
TEST_P(Matmul, Float16KeepsFloat32Sums) {
  const int64_t k = 64;
  Tensor x(DType::f16, 8, k), w(DType::f16, 8, k), out(DType::f32, 8, 8);
  for (int64_t i = 0; i < 8; ++i) {
    for (int64_t l = 0; l < k; ++l) {
      x.set(i, l, l == 0 ? 1.0f : 1000.0f);
      w.set(i, l, l == 0 ? 0x1p-10f : 1000.0f);
    }
  }
  kernels().matmul({8, 8, k, x.view(), w.view(), {}, {}, out.out(), false});
  EXPECT_NEAR(out.at(3, 5), 63e6 + 0x1p-10, 63e6 * 0x1p-24 * k);
}

TEST_P(Matmul, NothingToDo) {
  kernels().matmul({});
}

INSTANTIATE_KERNEL_TEST(Matmul);

}  // namespace

}  // namespace pennyweight::kernels
