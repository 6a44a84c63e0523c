#include <algorithm>
#include <cstdlib>

#include "kernels/kernel_test.h"

namespace pennyweight::kernels {

namespace {

struct Case {
  int64_t batch = 1, length = 1, keys = 1, heads = 1, kv_heads = 1, dim = 8;
  bool causal = true;
  int64_t window = 0;
  // Rows of q, k and v as slices of one wider projection.
  int64_t gap = 0;
  float cap = 0;
  bool sinks = false;
};

float sink_of(int64_t head) {
  return 0.5f * float(head % 3) - 0.25f;
}

class Attention : public KernelTest {
 protected:
  void check(const Case& c, DType type) {
    const float scale = 1.0f / std::sqrt(float(c.dim));
    const auto q = Tensor::random(
        type, c.batch * c.length, c.heads * c.dim, 1, 2.0, c.gap);
    const auto k = Tensor::random(
        type, c.batch * c.keys, c.kv_heads * c.dim, 2, 2.0, c.gap);
    const auto v = Tensor::random(
        type, c.batch * c.keys, c.kv_heads * c.dim, 3, 1.0, c.gap);
    Tensor out(type, c.batch * c.length, c.heads * c.dim);
    const auto view = [&](const Tensor& x, int64_t rows) {
      return HeadsView{x.data(), rows * x.stride(), x.stride(), c.dim};
    };
    std::vector<float> sinks;
    for (int64_t h = 0; h < c.heads; ++h) {
      sinks.push_back(sink_of(h));
    }
    kernels().attention(
        {.batch = c.batch,
         .length = c.length,
         .keys = c.keys,
         .heads = c.heads,
         .kv_heads = c.kv_heads,
         .head_dim = c.dim,
         .scale = scale,
         .causal = c.causal,
         .window = c.window,
         .cap = c.cap,
         .sinks = c.sinks ? sinks.data() : nullptr,
         .type = type,
         .q = view(q, c.length),
         .k = view(k, c.keys),
         .v = view(v, c.keys),
         .out = out.data()});
    for (int64_t b = 0; b < c.batch; ++b) {
      for (int64_t i = 0; i < c.length; ++i) {
        for (int64_t h = 0; h < c.heads; ++h) {
          check_row(c, type, scale, q, k, v, out, b, i, h);
        }
      }
    }
  }

 private:
  static bool sees(const Case& c, int64_t query, int64_t key) {
    const int64_t distance = c.keys - c.length + query - key;
    return !(c.causal && distance < 0) &&
        !(c.window > 0 && std::abs(distance) >= c.window);
  }

  void check_row(
      const Case& c,
      DType type,
      float scale,
      const Tensor& q,
      const Tensor& k,
      const Tensor& v,
      const Tensor& out,
      int64_t b,
      int64_t i,
      int64_t h) {
    const int64_t kv = h / (c.heads / c.kv_heads);
    std::vector<double> weights(size_t(c.keys), 0.0);
    double sum = c.sinks ? std::exp(double(sink_of(h))) : 0;
    double largest = 0;
    for (int64_t j = 0; j < c.keys; ++j) {
      double score = 0, magnitude = 0;
      for (int64_t d = 0; d < c.dim; ++d) {
        const double term = double(q.at(b * c.length + i, h * c.dim + d)) *
            k.at(b * c.keys + j, kv * c.dim + d) * scale;
        score += term;
        magnitude += std::abs(term);
      }
      if (sees(c, i, j)) {
        largest = std::max(largest, magnitude);
        // A capped score errs by no more than the score itself did.
        weights[j] = std::exp(
            c.cap > 0 ? double(c.cap) * std::tanh(score / double(c.cap))
                      : score);
        sum += weights[j];
      }
    }
    // Scaled queries and the weights may be rounded to the input's type. A
    // score that is off by e moves the result by no more than 2 e times the
    // weighted magnitude of v; sums are float32.
    const DType narrow = type == DType::bf16 ? DType::bf16 : DType::f32;
    const double score_error =
        largest * (rounding(narrow) + double(c.dim + 4) * 0x1p-24);
    const double relative =
        2 * score_error + rounding(narrow) + double(c.keys + 8) * 0x1p-23;
    for (int64_t d = 0; d < c.dim; ++d) {
      double exact = 0, magnitude = 0;
      for (int64_t j = 0; j < c.keys; ++j) {
        const double term = weights[j] * v.at(b * c.keys + j, kv * c.dim + d);
        exact += term;
        magnitude += std::abs(term);
      }
      exact = sum > 0 ? exact / sum : 0;
      const double slack = sum > 0 ? relative * magnitude / sum : 0;
      expect_close(
          out.at(b * c.length + i, h * c.dim + d),
          exact,
          type,
          slack,
          "row " + std::to_string(i) + " of " + std::to_string(c.length) +
              " with " + std::to_string(c.keys) + " keys");
    }
  }
};

constexpr DType kAll[] = {DType::f32, DType::bf16, DType::f16};

TEST_P(Attention, SmallShapes) {
  for (DType type : kAll) {
    for (int64_t length : {1, 2, 7, 33}) {
      check({.length = length, .keys = length, .dim = 16}, type);
      check(
          {.batch = 2,
           .length = length,
           .keys = length,
           .heads = 6,
           .kv_heads = 2,
           .dim = 24,
           .gap = 10},
          type);
    }
  }
}

TEST_P(Attention, CapsAndSinks) {
  for (DType type : kAll) {
    for (int64_t length : {1, 5, 37, 131}) {
      check(
          {.length = length,
           .keys = length,
           .heads = 6,
           .kv_heads = 2,
           .dim = 24,
           .cap = 1.5f},
          type);
      check(
          {.length = length,
           .keys = length + 3,
           .heads = 4,
           .kv_heads = 2,
           .dim = 16,
           .window = 9,
           .sinks = true},
          type);
    }
  }
}

TEST_P(Attention, TilesAndTails) {
  for (DType type : kAll) {
    check(
        {.length = 131,
         .keys = 131,
         .heads = 3,
         .kv_heads = 1,
         .dim = 64,
         .gap = 64},
        type);
    check({.length = 200, .keys = 200, .heads = 2, .kv_heads = 2}, type);
  }
}

TEST_P(Attention, HeadSizes) {
  for (DType type : kAll) {
    for (int64_t dim : {33, 48, 80, 96, 128}) {
      check(
          {.length = 70, .keys = 83, .heads = 4, .kv_heads = 2, .dim = dim},
          type);
    }
  }
}

TEST_P(Attention, CachedKeys) {
  for (DType type : kAll) {
    for (int64_t length : {1, 3, 20}) {
      check(
          {.batch = 2,
           .length = length,
           .keys = 75,
           .heads = 9,
           .kv_heads = 3,
           .dim = 32},
          type);
    }
  }
}

TEST_P(Attention, Windows) {
  for (DType type : kAll) {
    for (int64_t window : {1, 5, 40, 1000}) {
      check(
          {.length = 90,
           .keys = 110,
           .heads = 2,
           .kv_heads = 1,
           .dim = 16,
           .window = window},
          type);
    }
  }
}

TEST_P(Attention, NotCausal) {
  for (DType type : kAll) {
    check({.length = 50, .keys = 70, .causal = false}, type);
    check({.length = 50, .keys = 70, .causal = false, .window = 9}, type);
  }
}

// More keys than a block holds, so that sums are carried from block to block.
TEST_P(Attention, SeveralBlocksOfKeys) {
  for (DType type : kAll) {
    check({.length = 5, .keys = 1300, .heads = 2, .dim = 16}, type);
    check({.length = 40, .keys = 1111, .dim = 16, .window = 700}, type);
    check({.length = 40, .keys = 1111, .dim = 16, .causal = false}, type);
  }
}

INSTANTIATE_KERNEL_TEST(Attention);

}  // namespace

}  // namespace pennyweight::kernels
