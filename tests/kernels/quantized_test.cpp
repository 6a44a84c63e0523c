#include "kernels/kernel_test.h"

namespace pennyweight::kernels {

namespace {

struct Format {
  QuantMode mode;
  int bits, group;
};

std::vector<Format> formats() {
  std::vector<Format> all{
      {QuantMode::mxfp4, 4, 32},
      {QuantMode::mxfp8, 8, 32},
      {QuantMode::nvfp4, 4, 16}};
  for (int bits : {2, 3, 4, 5, 6, 8}) {
    for (int group : {32, 64, 128}) {
      all.push_back({QuantMode::affine, bits, group});
    }
  }
  return all;
}

/// Random codes and scales; the weights are worked out here once more from
/// the definition of each format.
struct Packed {
  Format format;
  int64_t rows, columns;
  DType scale_type;
  std::vector<uint8_t> codes, fp_scales;
  Tensor scales, biases;

  Packed(Format f, int64_t rows_, int64_t columns_, DType type, unsigned seed)
      : format(f),
        rows(rows_),
        columns(columns_),
        scale_type(type),
        codes(size_t(rows_ * columns_ * f.bits / 8)),
        fp_scales(size_t(rows_ * columns_ / f.group)),
        scales(Tensor::random(type, rows_, columns_ / f.group, seed, 0.1)),
        biases(Tensor::random(type, rows_, columns_ / f.group, seed + 1)) {
    std::mt19937 generator(seed);
    for (auto& byte : codes) {
      byte = uint8_t(generator());
      if (f.mode == QuantMode::mxfp8 && (byte & 127) == 127) {
        byte = 0x3a;  // not a number, which no comparison would survive
      }
    }
    for (auto& byte : fp_scales) {
      byte = f.mode == QuantMode::nvfp4 ? generator() % 127
                                        : 110 + generator() % 20;
    }
  }

  QuantizedMatrix view() const {
    QuantizedMatrix q{
        .mode = format.mode,
        .bits = format.bits,
        .group = format.group,
        .rows = rows,
        .columns = columns,
        .codes = codes.data(),
        .scales = fp_scales.data(),
        .scale_type = scale_type};
    if (format.mode == QuantMode::affine) {
      q.scales = scales.data();
      q.biases = biases.data();
    }
    return q;
  }

  uint32_t code(int64_t i, int64_t j) const {
    uint32_t value = 0;
    for (int b = 0; b < format.bits; ++b) {
      const int64_t bit = (i * columns + j) * format.bits + b;
      value |= uint32_t((codes[bit / 8] >> (bit % 8)) & 1) << b;
    }
    return value;
  }

  static double small_float(uint32_t code, int exponent_bits, int bits) {
    const int sign_bit = 1 << (exponent_bits + bits);
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const int exponent = int(code & (sign_bit - 1)) >> bits;
    const double fraction = double(code & ((1 << bits) - 1)) / (1 << bits);
    const double magnitude = exponent == 0
        ? std::ldexp(fraction, 1 - bias)
        : std::ldexp(1 + fraction, exponent - bias);
    return (int(code) & sign_bit) ? -magnitude : magnitude;
  }

  double weight(int64_t i, int64_t j) const {
    const int64_t g = j / format.group;
    const uint8_t scale = fp_scales[i * (columns / format.group) + g];
    switch (format.mode) {
      case QuantMode::affine:
        return double(scales.at(i, g)) * code(i, j) + biases.at(i, g);
      case QuantMode::mxfp4:
        return small_float(code(i, j), 2, 1) * std::ldexp(1.0, scale - 127);
      case QuantMode::nvfp4:
        return small_float(code(i, j), 2, 1) * small_float(scale, 4, 3);
      default:
        return small_float(code(i, j), 4, 3) * std::ldexp(1.0, scale - 127);
    }
  }

  std::string name() const {
    return "mode " + std::to_string(int(format.mode)) + ", " +
        std::to_string(format.bits) + " bits, group " +
        std::to_string(format.group) + ", " + type_name(scale_type);
  }
};

class Quantized : public KernelTest {};

TEST_P(Quantized, DequantizeEveryFormat) {
  for (const auto& format : formats()) {
    for (DType scale_type : {DType::f32, DType::bf16, DType::f16}) {
      const Packed packed(format, 7, 3 * 128, scale_type, 11);
      for (DType type : {DType::f32, DType::bf16, DType::f16}) {
        Tensor out(type, 4, packed.columns, 9);
        kernels().dequantize({packed.view(), 2, 4, out.out()});
        out.expect_gaps_untouched();
        for (int64_t i = 0; i < 4; ++i) {
          for (int64_t j = 0; j < packed.columns; ++j) {
            // scale * code + bias is rounded to float32 (once, or twice
            // without a fused multiply-add), then to the result's type.
            const double exact = packed.weight(2 + i, j);
            const double slack =
                0x1p-23 * (std::abs(exact) + std::abs(packed.biases.at(0, 0)));
            expect_close(out.at(i, j), exact, type, slack, packed.name());
          }
        }
      }
    }
  }
}

// With scales of 8 bits nothing is lost before the one rounding, so that the
// dense weight is the same on every machine.
TEST_P(Quantized, DequantizeRoundsOnce) {
  for (const auto& format : formats()) {
    const Packed packed(format, 3, 2 * 128, DType::bf16, 5);
    Tensor out(DType::bf16, 3, packed.columns);
    kernels().dequantize({packed.view(), 0, 3, out.out()});
    for (int64_t i = 0; i < 3; ++i) {
      for (int64_t j = 0; j < packed.columns; ++j) {
        BFloat16 expected;
        from_float(float(packed.weight(i, j)), expected);
        ASSERT_EQ(out.at(i, j), to_float(expected)) << packed.name();
      }
    }
  }
}

TEST_P(Quantized, Matmul) {
  for (const auto& format : formats()) {
    const Packed packed(format, 37, 2 * 128, DType::bf16, 3);
    for (DType type : {DType::f32, DType::bf16, DType::f16}) {
      for (int64_t m : {1, 2, 3, 4, 5, 33}) {
        const auto x = Tensor::random(type, m, packed.columns, 8, 1.0, 4);
        const auto bias = Tensor::random(type, 1, packed.rows, 9);
        const auto residual = Tensor::random(type, m, packed.rows, 10);
        Tensor out(type, m, packed.rows, 2);
        kernels().quantized_matmul(
            {m,
             x.view(),
             packed.view(),
             {bias.data(), type},
             residual.view(),
             out.out()});
        out.expect_gaps_untouched();
        for (int64_t i = 0; i < m; ++i) {
          for (int64_t j = 0; j < packed.rows; ++j) {
            double sum = double(bias.at(0, j)) + residual.at(i, j);
            double magnitude = std::abs(sum);
            for (int64_t l = 0; l < packed.columns; ++l) {
              const double term = double(x.at(i, l)) * packed.weight(j, l);
              sum += term;
              magnitude += std::abs(term);
            }
            // Each weight may be rounded to x's type; then float32 sums.
            const double slack = magnitude *
                (rounding(type) + double(packed.columns + 2) * 0x1p-24);
            expect_close(out.at(i, j), sum, type, slack, packed.name());
          }
        }
      }
    }
  }
}

// Enough rows for several panels.
TEST_P(Quantized, MatmulInPanels) {
  const Packed packed({QuantMode::affine, 4, 64}, 2300, 1024, DType::bf16, 3);
  const int64_t m = GetParam().choice == Choice::reference ? 1 : 6;
  const auto x = Tensor::random(DType::bf16, m, packed.columns, 8);
  Tensor out(DType::f32, m, packed.rows);
  kernels().quantized_matmul({m, x.view(), packed.view(), {}, {}, out.out()});
  for (int64_t j = 0; j < packed.rows; j += 23) {
    double sum = 0, magnitude = 0;
    for (int64_t l = 0; l < packed.columns; ++l) {
      const double term = double(x.at(m - 1, l)) * packed.weight(j, l);
      sum += term;
      magnitude += std::abs(term);
    }
    const double slack =
        magnitude * (rounding(DType::bf16) + double(packed.columns) * 0x1p-24);
    expect_close(out.at(m - 1, j), sum, DType::f32, slack, packed.name());
  }
}

INSTANTIATE_KERNEL_TEST(Quantized);

}  // namespace

}  // namespace pennyweight::kernels
