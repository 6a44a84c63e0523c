#include <limits>

#include "kernels/kernel_test.h"
#include "kernels/simd/simd.h"

namespace pennyweight::kernels {

namespace {

constexpr DType kElementTypes[] = {DType::f32, DType::bf16, DType::f16};
constexpr int64_t kWidths[] = {1, 2, 7, 16, 31, 64, 100, 576, 2049};

class Elementwise : public KernelTest {};

TEST_P(Elementwise, RmsNorm) {
  for (DType type : kElementTypes) {
    for (DType out_type : kElementTypes) {
      for (int64_t n : kWidths) {
        const auto x = Tensor::random(type, 5, n, 1, 3.0, 3);
        const auto weight = Tensor::random(out_type, 1, n, 2);
        Tensor out(out_type, 5, n, 6);
        kernels().rms_norm(
            {5, n, 1e-5f, x.view(), {weight.data(), out_type}, out.out()});
        out.expect_gaps_untouched();
        for (int64_t i = 0; i < 5; ++i) {
          double squares = 0;
          for (int64_t j = 0; j < n; ++j) {
            squares += double(x.at(i, j)) * x.at(i, j);
          }
          const double factor = 1 / std::sqrt(squares / double(n) + 1e-5f);
          for (int64_t j = 0; j < n; ++j) {
            const double exact = x.at(i, j) * factor * weight.at(0, j);
            // n additions of positive terms, then 4 roundings; half of the
            // sum's error passes through the root.
            const double slack =
                std::abs(exact) * (double(n) / 2 + 6) * 0x1p-24;
            expect_close(out.at(i, j), exact, out_type, slack, "rms_norm");
          }
        }
      }
    }
  }
}

TEST_P(Elementwise, Transpose) {
  for (DType type : kElementTypes) {
    for (int64_t rows : {1, 8, 37, 130}) {
      for (int64_t n : kWidths) {
        const auto x = Tensor::random(type, rows, n, 1, 1.0, 3);
        Tensor out(type, n, rows, 5);
        kernels().transpose(
            {rows, n, x.view(), out.out().data, out.out().stride});
        out.expect_gaps_untouched();
        for (int64_t i = 0; i < rows; ++i) {
          for (int64_t j = 0; j < n; ++j) {
            ASSERT_EQ(out.at(j, i), x.at(i, j));
          }
        }
      }
    }
  }
}

TEST_P(Elementwise, Subtract) {
  for (DType type : kElementTypes) {
    for (int64_t n : {1, 15, 100, 50001}) {
      const auto a = Tensor::random(DType::f32, 1, n, 1);
      const auto b = Tensor::random(DType::f32, 1, n, 2);
      Tensor out(type, 1, n, 3);
      kernels().subtract(
          {n,
           static_cast<const float*>(a.data()),
           static_cast<const float*>(b.data()),
           type,
           out.out().data});
      out.expect_gaps_untouched();
      for (int64_t i = 0; i < n; ++i) {
        const float exact = float(a.at(0, i)) - float(b.at(0, i));
        expect_close(out.at(0, i), exact, type, 0, "subtract");
      }
    }
  }
}

TEST_P(Elementwise, SwigluAndGeglu) {
  for (DType type : kElementTypes) {
    for (int64_t n : kWidths) {
      for (GateKind kind :
           {GateKind::silu,
            GateKind::gelu,
            GateKind::clipped,
            GateKind::relu,
            GateKind::none}) {
        const auto gate = Tensor::random(type, 3, n, 1, 6.0, 3);
        const auto up = Tensor::random(type, 3, n, 2, 4.0, 5);
        Tensor out(type, 3, n, 1);
        kernels().gated_activation(
            {3, n, gate.view(), up.view(), out.out(), kind});
        out.expect_gaps_untouched();
        for (int64_t i = 0; i < 3; ++i) {
          for (int64_t j = 0; j < n; ++j) {
            const bool clips = kind == GateKind::clipped;
            const double g =
                clips ? std::min(gate.at(i, j), 7.0f) : gate.at(i, j);
            const double u = clips ? std::clamp(up.at(i, j), -7.0f, 7.0f) + 1.0
                                   : up.at(i, j);
            const double cube = g + 0.044715 * g * g * g;
            const double z = clips       ? 1.702 * g
                : kind == GateKind::gelu ? 2 * std::sqrt(2 / M_PI) * cube
                                         : g;
            const double share = kind == GateKind::none ? 1
                : kind == GateKind::relu                ? (g > 0 ? 1 : 0)
                                         : 1 / (1 + std::exp(-z));
            const double exact = g * share * u;
            // exp within 2 units in the last place, and 3 more roundings; of
            // gelu's z 4 roundings, which exp multiplies by z.
            const double roundings =
                8 + (kind == GateKind::silu ? 0 : 4 * std::abs(z));
            const double slack = std::abs(exact) * roundings * 0x1p-24;
            // Where the sigmoid underflows float32 next to nothing is left.
            expect_close(
                out.at(i, j), exact, type, slack + 1e-35, "swiglu, geglu");
          }
        }
      }
    }
  }
}

TEST_P(Elementwise, SwigluFarFromZero) {
  const float inputs[] = {-1000, -100, -90, -80, 0, 80, 100, 1000};
  Tensor gate(DType::f32, 1, 8), up(DType::f32, 1, 8), out(DType::f32, 1, 8);
  for (int64_t j = 0; j < 8; ++j) {
    gate.set(0, j, inputs[j]);
    up.set(0, j, 1);
  }
  kernels().gated_activation({1, 8, gate.view(), up.view(), out.out()});
  for (int64_t j = 0; j < 8; ++j) {
    const double exact = inputs[j] / (1 + std::exp(-double(inputs[j])));
    // Below -88 exp(-x) is capped: what is left is under 1e-35.
    EXPECT_NEAR(out.at(0, j), exact, std::abs(exact) * 7 * 0x1p-24 + 1e-35);
  }
}

TEST_P(Elementwise, SoftmaxAndLogSumExp) {
  for (DType type : kElementTypes) {
    for (int64_t n : kWidths) {
      const auto x = Tensor::random(type, 4, n, 1, 4.0, 3);
      Tensor out(type, 4, n, 2);
      std::vector<float> sums(4);
      kernels().softmax({4, n, x.view(), out.out()});
      kernels().logsumexp({4, n, x.view(), sums.data()});
      out.expect_gaps_untouched();
      for (int64_t i = 0; i < 4; ++i) {
        double sum = 0;
        for (int64_t j = 0; j < n; ++j) {
          sum += std::exp(double(x.at(i, j)));
        }
        // exp is off by 2 units in the last place and by the rounding of
        // x - max, at most 40 here; a chunk's sum by at most 1024 more.
        const double relative = (2 * 2 + 40 + 1024) * 0x1p-24;
        EXPECT_NEAR(
            sums[i],
            std::log(sum),
            relative + std::abs(std::log(sum)) * 0x1p-24);
        for (int64_t j = 0; j < n; ++j) {
          const double exact = std::exp(double(x.at(i, j))) / sum;
          expect_close(out.at(i, j), exact, type, exact * relative, "softmax");
        }
      }
    }
  }
}

TEST_P(Elementwise, LogSumExpOfLargeValues) {
  Tensor x(DType::f32, 2, 33);
  for (int64_t j = 0; j < 33; ++j) {
    x.set(0, j, 1e4f + float(j));
    x.set(1, j, -std::numeric_limits<float>::infinity());
  }
  std::vector<float> sums(2);
  kernels().logsumexp({2, 33, x.view(), sums.data()});
  EXPECT_NEAR(sums[0], 1e4 + 32 + 0.45867514, 1e-3);
  EXPECT_EQ(sums[1], -std::numeric_limits<float>::infinity());
}

TEST_P(Elementwise, NotANumberIsNotHidden) {
  Tensor x(DType::f32, 1, 40), out(DType::f32, 1, 40);
  for (int64_t j = 0; j < 40; ++j) {
    x.set(0, j, j == 20 ? std::numeric_limits<float>::quiet_NaN() : 1.0f);
  }
  float sum = 0;
  kernels().logsumexp({1, 40, x.view(), &sum});
  EXPECT_TRUE(std::isnan(sum));
  kernels().softmax({1, 40, x.view(), out.out()});
  EXPECT_TRUE(std::isnan(out.at(0, 20)));
  kernels().gated_activation({1, 40, x.view(), x.view(), out.out()});
  EXPECT_TRUE(std::isnan(out.at(0, 20)));
}

TEST_P(Elementwise, Rope) {
  for (DType type : kElementTypes) {
    for (bool traditional : {false, true}) {
      for (int64_t dims : {2, 6, 40, 64}) {
        const int64_t batch = 2, length = 5, heads = 3, d = 64;
        const int64_t offset = 1000;
        const auto x = Tensor::random(type, batch * length, heads * d, 1);
        Tensor out(type, batch * length, heads * d);
        std::vector<float> frequencies(size_t(dims / 2));
        for (int64_t i = 0; i < dims / 2; ++i) {
          frequencies[i] = float(std::pow(1e4, -2.0 * double(i) / dims));
        }
        kernels().rope(
            {.batch = batch,
             .length = length,
             .heads = heads,
             .head_dim = d,
             .dims = dims,
             .traditional = traditional,
             .input_scale = 1.5f,
             .offset = offset,
             .frequencies = frequencies.data(),
             .type = type,
             .x = x.data(),
             .x_batch_stride = length * heads * d,
             .x_row_stride = heads * d,
             .x_head_stride = d,
             .out = out.data()});
        for (int64_t row = 0; row < batch * length; ++row) {
          const float position = float(offset + row % length);
          for (int64_t h = 0; h < heads; ++h) {
            for (int64_t i = dims; i < d; ++i) {
              ASSERT_EQ(out.at(row, h * d + i), x.at(row, h * d + i));
            }
            for (int64_t i = 0; i < dims / 2; ++i) {
              const int64_t a = h * d + (traditional ? 2 * i : i);
              const int64_t b = a + (traditional ? 1 : dims / 2);
              const double angle = position * frequencies[i];
              const double c = 1.5 * std::cos(angle), s = 1.5 * std::sin(angle);
              const double xa = x.at(row, a), xb = x.at(row, b);
              // Each product and the sum are rounded, and the sine.
              const double slack =
                  4 * 0x1p-24 * 1.5 * (std::abs(xa) + std::abs(xb));
              expect_close(
                  out.at(row, a), xa * c - xb * s, type, slack, "rope");
              expect_close(
                  out.at(row, b), xa * s + xb * c, type, slack, "rope");
            }
          }
        }
      }
    }
  }
}

// x [batch, heads, length, head_dim] seen as [batch, length, heads, head_dim],
// at positions where a float32 sine would have lost its digits.
TEST_P(Elementwise, RopeOfStridedRowsFarAway) {
  const int64_t length = 6, heads = 2, d = 16, offset = 131000;
  const auto x = Tensor::random(DType::f32, heads * length, d, 1);
  Tensor out(DType::f32, length * heads, d);
  std::vector<float> frequencies(8, 1.0f);
  kernels().rope(
      {.batch = 1,
       .length = length,
       .heads = heads,
       .head_dim = d,
       .dims = d,
       .offset = offset,
       .frequencies = frequencies.data(),
       .x = x.data(),
       .x_row_stride = d,
       .x_head_stride = length * d,
       .out = out.data()});
  for (int64_t t = 0; t < length; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      const double xa = x.at(h * length + t, 3), xb = x.at(h * length + t, 11);
      const double exact =
          xa * std::cos(double(offset + t)) - xb * std::sin(double(offset + t));
      EXPECT_NEAR(out.at(t * heads + h, 3), exact, 1e-6);
    }
  }
}

INSTANTIATE_KERNEL_TEST(Elementwise);

TEST(Types, RoundingIsToNearestEven) {
  const auto bf16 = [](float x) {
    BFloat16 y;
    from_float(x, y);
    return y.bits;
  };
  EXPECT_EQ(bf16(1.0f + 0x1p-8f), 0x3f80);  // a tie, to even
  EXPECT_EQ(bf16(1.0f + 3 * 0x1p-8f), 0x3f82);
  EXPECT_EQ(bf16(std::numeric_limits<float>::infinity()), 0x7f80);
  EXPECT_EQ(bf16(std::nanf("")) & 0x7fc0, 0x7fc0);
  EXPECT_EQ(bf16(3.4e38f), 0x7f80);
  const auto f16 = [](float x) {
    Float16 y;
    from_float(x, y);
    return y.bits;
  };
  EXPECT_EQ(f16(1.0f + 0x1p-11f), 0x3c00);
  EXPECT_EQ(f16(1.0f + 3 * 0x1p-11f), 0x3c02);
  EXPECT_EQ(f16(65519.0f), 0x7bff);
  EXPECT_EQ(f16(65520.0f), 0x7c00);
  EXPECT_EQ(f16(-0x1p-24f), 0x8001);
  EXPECT_EQ(f16(0x1p-25f), 0x0000);
  EXPECT_EQ(f16(3 * 0x1p-25f), 0x0002);
  EXPECT_EQ(f16(0x1.ffcp-15f), 0x0400);  // the largest subnormal rounds up
}

class Conversion : public KernelTest {};

// Every float16 and bfloat16 to float32 and back, and floats between them,
// as the scalar conversions have it.
TEST_P(Conversion, MatchesScalar) {
  if (GetParam().choice == Choice::reference) {
    GTEST_SKIP() << "the reference converts by these scalars";
  }
  const int64_t n = 65536;
  Tensor wide(DType::f32, 1, n);
  for (DType type : {DType::bf16, DType::f16}) {
    Tensor narrow(type, 1, n), back(type, 1, n);
    for (int64_t i = 0; i < n; ++i) {
      static_cast<uint16_t*>(narrow.data())[i] = uint16_t(i);
    }
    simd::convert({1, n, narrow.view(), wide.out()});
    for (int64_t i = 0; i < n; ++i) {
      const float expected = narrow.at(0, i);
      if (std::isnan(expected)) {
        ASSERT_TRUE(std::isnan(wide.at(0, i)));
      } else {
        ASSERT_EQ(wide.at(0, i), expected) << i;
      }
    }
    std::mt19937 generator(1);
    for (int64_t i = 0; i < n; ++i) {
      const float between = std::ldexp(float(generator()), -32 - int(i % 30));
      wide.set(0, i, narrow.at(0, i) * (1.0f + 0x1p-7f * between));
    }
    simd::convert({1, n, wide.view(), back.out()});
    for (int64_t i = 0; i < n; ++i) {
      Tensor expected(type, 1, 1);
      expected.set(0, 0, wide.at(0, i));
      if (std::isnan(expected.at(0, 0))) {
        ASSERT_TRUE(std::isnan(back.at(0, i)));
      } else {
        ASSERT_EQ(back.at(0, i), expected.at(0, 0)) << wide.at(0, i);
      }
    }
  }
}

INSTANTIATE_KERNEL_TEST(Conversion);

}  // namespace

}  // namespace pennyweight::kernels
