#include <algorithm>
#include <cmath>

#include "kernels/kernel_test.h"

// The recurrences and the convolution, written down in float64.

namespace pennyweight::kernels {

namespace {

struct Shape {
  int64_t batch = 1, length = 1, heads = 1, key_heads = 1;
  int64_t key_dim = 8, value_dim = 8;
};

constexpr ScanRule kRules[] = {ScanRule::delta, ScanRule::sum};

/// What the state is multiplied by at a step; by the sum rule the kernel is
/// given its logarithm.
float decay(int64_t i) {
  return 0.5f + 0.5f * float((i * 7) % 11) / 11;
}
std::vector<float> given_decays(int64_t count, ScanRule rule) {
  std::vector<float> g;
  for (int64_t i = 0; i < count; ++i) {
    g.push_back(rule == ScanRule::sum ? std::log(decay(i)) : decay(i));
  }
  return g;
}
std::vector<float> some_skips(int64_t heads) {
  std::vector<float> skip;
  for (int64_t h = 0; h < heads; ++h) {
    skip.push_back(float(h % 5) / 3 - 0.5f);
  }
  return skip;
}

class GatedDelta : public KernelTest {
 protected:
  void check(const Shape& s, DType type) {
    for (ScanRule rule : kRules) {
      check(s, type, rule);
    }
  }

  void check(const Shape& s, DType type, ScanRule rule) {
    const auto q = unit_rows(type, s, 1);
    const auto k = unit_rows(type, s, 2);
    const int64_t rows = s.batch * s.length;
    const auto v = Tensor::random(type, rows, s.heads * s.value_dim, 3);
    const auto g = given_decays(rows * s.heads, rule);
    const auto skip = some_skips(s.heads);
    std::vector<float> beta;
    for (int64_t i = 0; i < rows * s.heads; ++i) {
      beta.push_back(float((i * 5) % 13) / 13);
    }
    Tensor out(type, rows, s.heads * s.value_dim);
    const auto view = [&](const Tensor& x, int64_t size) {
      return HeadsView{x.data(), s.length * x.stride(), x.stride(), size};
    };
    kernels().gated_delta(
        {.batch = s.batch,
         .length = s.length,
         .heads = s.heads,
         .key_heads = s.key_heads,
         .key_dim = s.key_dim,
         .value_dim = s.value_dim,
         .type = type,
         .value_type = type,
         .q = view(q, s.key_dim),
         .k = view(k, s.key_dim),
         .v = view(v, s.value_dim),
         .g = g.data(),
         .beta = beta.data(),
         .out = out.data(),
         .rule = rule,
         .skip = skip.data()});
    for (int64_t b = 0; b < s.batch; ++b) {
      for (int64_t h = 0; h < s.heads; ++h) {
        check_head(s, type, rule, {q, k, v, out}, beta, b, h);
      }
    }
  }

 private:
  static Tensor unit_rows(DType type, const Shape& s, unsigned seed) {
    // Their length is about 1: the step then shortens what it is applied to.
    const double scale = 0.7 / std::sqrt(double(s.key_dim));
    return Tensor::random(
        type, s.batch * s.length, s.key_heads * s.key_dim, seed, scale);
  }

  struct Tensors {
    const Tensor &q, &k, &v, &out;
  };

  static void check_head(
      const Shape& s,
      DType type,
      ScanRule rule,
      const Tensors& all,
      const std::vector<float>& beta,
      int64_t b,
      int64_t h) {
    const auto& [q, k, v, out] = all;
    const bool corrects = rule == ScanRule::delta;
    const double skip = corrects ? 0 : double(some_skips(s.heads)[size_t(h)]);
    const int64_t kh = h / (s.heads / s.key_heads);
    std::vector<double> state(size_t(s.value_dim * s.key_dim), 0.0);
    for (int64_t t = 0; t < s.length; ++t) {
      const int64_t row = b * s.length + t;
      const auto gate = size_t(row * s.heads + h);
      for (int64_t i = 0; i < s.value_dim; ++i) {
        double* own = state.data() + i * s.key_dim;
        double seen = 0;
        for (int64_t d = 0; d < s.key_dim; ++d) {
          own[d] *= double(decay(int64_t(gate)));
          seen += own[d] * double(k.at(row, kh * s.key_dim + d));
        }
        const double value = v.at(row, h * s.value_dim + i);
        const double step =
            double(beta[gate]) * (value - (corrects ? seen : 0));
        double y = skip * value;
        for (int64_t d = 0; d < s.key_dim; ++d) {
          own[d] += step * double(k.at(row, kh * s.key_dim + d));
          y += own[d] * double(q.at(row, kh * s.key_dim + d));
        }
        // Each step errs by a sum over key_dim in float32 of values of about
        // 1, and keeps the errors before it no larger than they were.
        const double slack = double((t + 1) * (s.key_dim + 8)) * 0x1p-22;
        expect_close(out.at(row, h * s.value_dim + i), y, type, slack, "delta");
      }
    }
  }
};

/// The gradient by each input, against the reference's in float64, which the
/// tests of ops compare with MLX's.
void check_backward(
    const Implementation& own,
    const Shape& s,
    DType type,
    double share,
    ScanRule rule) {
  const int64_t rows = s.batch * s.length;
  const double scale = 0.7 / std::sqrt(double(s.key_dim));
  const auto q = Tensor::random(type, rows, s.key_heads * s.key_dim, 1, scale);
  const auto k = Tensor::random(type, rows, s.key_heads * s.key_dim, 2, scale);
  const auto v = Tensor::random(type, rows, s.heads * s.value_dim, 3);
  const auto random = Tensor::random(type, rows, s.heads * s.value_dim, 4);
  const auto g = given_decays(rows * s.heads, rule);
  const auto skip = some_skips(s.heads);
  std::vector<float> beta;
  for (int64_t i = 0; i < rows * s.heads; ++i) {
    beta.push_back(float((i * 5) % 13) / 13);
  }
  const auto view = [&](const Tensor& x, int64_t size) {
    return HeadsView{x.data(), s.length * x.stride(), x.stride(), size};
  };
  // Without gaps between rows, as a result is.
  std::vector<float> wide;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < s.heads * s.value_dim; ++c) {
      wide.push_back(random.at(r, c));
    }
  }
  GatedDeltaBackwardArgs args{
      .forward =
          {.batch = s.batch,
           .length = s.length,
           .heads = s.heads,
           .key_heads = s.key_heads,
           .key_dim = s.key_dim,
           .value_dim = s.value_dim,
           .type = type,
           .value_type = DType::f32,
           .q = view(q, s.key_dim),
           .k = view(k, s.key_dim),
           .v = {},
           .g = g.data(),
           .beta = beta.data(),
           .out = nullptr,
           .rule = rule,
           .skip = skip.data()},
      .dy = wide.data()};
  std::vector<float> values;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < s.heads * s.value_dim; ++c) {
      values.push_back(v.at(r, c));
    }
  }
  const int64_t width = s.heads * s.value_dim;
  args.forward.v = {values.data(), s.length * width, width, s.value_dim};
  const int64_t token =
      2 * s.key_heads * s.key_dim + s.heads * (s.value_dim + 2);
  std::vector<float> out(size_t(rows * token)), expected(out.size());
  args.out = out.data();
  own.gated_delta_backward(args);
  args.out = expected.data();
  implementation(Choice::reference).gated_delta_backward(args);
  double largest = 0;
  for (const float value : expected) {
    largest = std::max(largest, double(std::abs(value)));
  }
  for (size_t i = 0; i < out.size(); ++i) {
    ASSERT_NEAR(out[i], expected[i], share * largest) << i % size_t(token);
  }
}

TEST_P(GatedDelta, Backward) {
  // The last has few key heads, whose value heads go in runs.
  const Shape shapes[] = {
      {},
      {.length = 35, .key_dim = 5, .value_dim = 3},
      {.batch = 2,
       .length = 65,
       .heads = 6,
       .key_heads = 2,
       .key_dim = 20,
       .value_dim = 36},
      {.length = 64, .heads = 2, .key_dim = 128, .value_dim = 128},
      {.length = 40, .heads = 35, .key_dim = 12, .value_dim = 8}};
  for (DType type : {DType::f32, DType::bf16}) {
    for (ScanRule rule : kRules) {
      for (const Shape& shape : shapes) {
        // Float32 sums over key_dim, value_dim and the tokens behind.
        check_backward(kernels(), shape, type, 300 * 0x1p-23, rule);
      }
    }
  }
}

TEST_P(GatedDelta, HeadsTailsAndGroups) {
  for (DType type : {DType::f32, DType::bf16, DType::f16}) {
    check({}, type);
    check({.length = 17, .key_dim = 5, .value_dim = 3}, type);
    check(
        {.batch = 2,
         .length = 33,
         .heads = 6,
         .key_heads = 2,
         .key_dim = 20,
         .value_dim = 36},
        type);
    check(
        {.length = 9,
         .heads = 2,
         .key_heads = 2,
         .key_dim = 128,
         .value_dim = 128},
        type);
  }
}

INSTANTIATE_KERNEL_TEST(GatedDelta);

class CausalConv : public KernelTest {};

TEST_P(CausalConv, WithAndWithoutSiluAndBias) {
  constexpr int64_t kBatch = 2;
  for (DType type : {DType::f32, DType::bf16, DType::f16}) {
    for (int64_t channels : {1, 7, 40}) {
      for (int64_t width : {1, 4}) {
        for (int way = 0; way < 4; ++way) {
          const bool silu = way % 2 == 1;
          const bool biased = way / 2 == 1;
          const int64_t length = 11;
          const auto x =
              Tensor::random(type, kBatch * length, channels, 1, 1.0, 3);
          const auto weight = Tensor::random(type, channels, width, 2);
          const auto bias = Tensor::random(type, 1, channels, 3);
          Tensor out(type, kBatch * length, channels);
          kernels().causal_conv(
              {.batch = kBatch,
               .length = length,
               .channels = channels,
               .width = width,
               .silu = silu,
               .type = type,
               .x = x.data(),
               .x_batch_stride = length * x.stride(),
               .x_row_stride = x.stride(),
               .weight = {weight.data(), type},
               .bias = {biased ? bias.data() : nullptr, type},
               .out = out.data()});
          for (int64_t row = 0; row < kBatch * length; ++row) {
            for (int64_t c = 0; c < channels; ++c) {
              double sum = biased ? double(bias.at(0, c)) : 0;
              double magnitude = std::abs(sum);
              for (int64_t w = 0; w < width; ++w) {
                const int64_t back = width - 1 - w;
                if (back <= row % length) {
                  const double term =
                      double(x.at(row - back, c)) * double(weight.at(c, w));
                  sum += term;
                  magnitude += std::abs(term);
                }
              }
              // silu is nowhere steeper than 1.1.
              const double slack = double(width + 8) * 0x1p-23 * magnitude;
              const double expected = silu ? sum / (1 + std::exp(-sum)) : sum;
              expect_close(out.at(row, c), expected, type, slack, "conv");
            }
          }
        }
      }
    }
  }
}

INSTANTIATE_KERNEL_TEST(CausalConv);

}  // namespace

}  // namespace pennyweight::kernels
