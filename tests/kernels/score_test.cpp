#include <algorithm>
#include <limits>

#include "kernels/kernel_test.h"
#include "kernels/score_state.h"

namespace pennyweight::kernels {

namespace {

constexpr int64_t kStride = 16;

class Score : public KernelTest {
 protected:
  struct Result {
    double nll, kl, reference_nll, agrees;
  };

  static std::vector<float> start(int64_t rows) {
    std::vector<float> state(size_t(rows * kStride), 0.0f);
    for (int64_t i = 0; i < rows; ++i) {
      state[i * kStride + kScoreMax] = std::numeric_limits<float>::lowest();
      state[i * kStride + kScoreRefMax] = std::numeric_limits<float>::lowest();
    }
    return state;
  }

  std::vector<Result> run(
      const Tensor& logits,
      const Tensor* reference,
      const std::vector<int32_t>& targets,
      const std::vector<int64_t>& tiles) {
    const int64_t rows = logits.rows();
    auto state = start(rows);
    int64_t first = 0;
    for (int64_t tile : tiles) {
      ScoreArgs args{
          rows,
          tile,
          first,
          from_column(logits.view(), first),
          {},
          targets.data(),
          state.data(),
          kStride};
      if (reference) {
        args.reference = from_column(reference->view(), first);
      }
      kernels().score_update(args);
      first += tile;
    }
    EXPECT_EQ(first, logits.columns());
    std::vector<float> out(size_t(4 * rows));
    score_finish({rows, state.data(), kStride, out.data()});
    std::vector<Result> results;
    for (int64_t i = 0; i < rows; ++i) {
      results.push_back(
          {out[i], out[rows + i], out[2 * rows + i], out[3 * rows + i]});
    }
    return results;
  }

  static double log_sum(const Tensor& x, int64_t row) {
    double max = x.at(row, 0), sum = 0;
    for (int64_t j = 0; j < x.columns(); ++j) {
      max = std::max(max, double(x.at(row, j)));
    }
    for (int64_t j = 0; j < x.columns(); ++j) {
      sum += std::exp(x.at(row, j) - max);
    }
    return max + std::log(sum);
  }

  static int64_t argmax(const Tensor& x, int64_t row) {
    int64_t best = 0;
    for (int64_t j = 1; j < x.columns(); ++j) {
      best = x.at(row, j) > x.at(row, best) ? j : best;
    }
    return best;
  }

  /// Against float64. A chunk's float32 sum of up to 1024 positive terms is
  /// off by far less than 1e-5 of itself: 64 partial sums a lane at most for
  /// 16 lanes and 256 for 4, plus 2 units for exp. The KL adds terms of
  /// size |r - c|, here up to 20.
  static void expect_match(
      const std::vector<Result>& results,
      const Tensor& c,
      const Tensor& r,
      const std::vector<int32_t>& targets) {
    for (int64_t i = 0; i < c.rows(); ++i) {
      const double lc = log_sum(c, i), lr = log_sum(r, i);
      double kl = 0;
      for (int64_t j = 0; j < c.columns(); ++j) {
        const double p = std::exp(r.at(i, j) - lr);
        kl += p > 0 ? p * ((r.at(i, j) - lr) - (c.at(i, j) - lc)) : 0;
      }
      EXPECT_NEAR(results[i].nll, lc - c.at(i, targets[i]), 1e-5);
      EXPECT_NEAR(results[i].reference_nll, lr - r.at(i, targets[i]), 1e-5);
      EXPECT_NEAR(results[i].kl, kl, 1e-5);
      EXPECT_EQ(results[i].agrees, argmax(c, i) == argmax(r, i) ? 1 : 0);
    }
  }
};

TEST_P(Score, TilesOfEverySize) {
  for (DType type : {DType::f32, DType::bf16, DType::f16}) {
    const int64_t rows = 6, vocabulary = 5003;
    const auto c = Tensor::random(type, rows, vocabulary, 1, 3.0, 5);
    auto r = c;
    const auto noise = Tensor::random(type, rows, vocabulary, 2, 0.7);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < vocabulary; ++j) {
        r.set(i, j, c.at(i, j) + noise.at(i, j));
      }
    }
    const std::vector<int32_t> targets{0, 1023, 1024, 5002, 17, 2048};
    using Tiles = std::vector<int64_t>;
    for (const Tiles& tiles :
         {Tiles{5003}, Tiles{1, 15, 16, 17, 4954}, Tiles{1024, 1024, 2955}}) {
      expect_match(run(c, &r, targets, tiles), c, r, targets);
    }
  }
}

// Logits made a tile at a time give what logits at once give, to the last bit
// but for the order of the products' sums.
TEST_P(Score, OfAProduct) {
  const int64_t rows = 70, columns = 1200, first = 30;
  const int64_t k = 40, reference_k = 24;
  for (DType type : {DType::f32, DType::bf16}) {
    const auto x = Tensor::random(type, rows, k, 1, 0.5, 3);
    const auto w = Tensor::random(type, columns, k, 2);
    const auto bias = Tensor::random(type, 1, columns, 3);
    const auto rx = Tensor::random(type, rows, reference_k, 4, 0.5);
    const auto rw = Tensor::random(type, columns, reference_k, 5);
    Tensor c(DType::f32, rows, columns), r(DType::f32, rows, columns);
    const ConstVector b{bias.data(), type};
    kernels().matmul(
        {rows, columns, k, x.view(), w.view(), b, {}, c.out(), false});
    kernels().matmul(
        {rows,
         columns,
         reference_k,
         rx.view(),
         rw.view(),
         {},
         {},
         r.out(),
         false});
    std::vector<int32_t> targets(rows);
    for (int64_t i = 0; i < rows; ++i) {
      targets[i] = int32_t(first + i * 17);
    }
    auto state = start(rows);
    override_choice(GetParam().choice);
    score_matmul(
        {.rows = rows,
         .columns = columns,
         .first = first,
         .logits = {k, x.view(), w.view(), b},
         .reference = {reference_k, rx.view(), rw.view(), {}},
         .targets = targets.data(),
         .state = state.data(),
         .state_stride = kStride});
    override_choice({});
    std::vector<float> out(size_t(4 * rows));
    score_finish({rows, state.data(), kStride, out.data()});
    std::vector<Result> results;
    std::vector<int32_t> columns_of_targets;
    for (int64_t i = 0; i < rows; ++i) {
      results.push_back(
          {out[i], out[rows + i], out[2 * rows + i], out[3 * rows + i]});
      columns_of_targets.push_back(targets[i] - int32_t(first));
    }
    expect_match(results, c, r, columns_of_targets);
  }
}

// Small divergences are what high widths are told apart by.
TEST_P(Score, NearlyEqualModels) {
  const int64_t rows = 4, vocabulary = 4096;
  const auto c = Tensor::random(DType::f32, rows, vocabulary, 1, 3.0);
  auto r = c;
  const auto noise = Tensor::random(DType::f32, rows, vocabulary, 2, 1e-3);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < vocabulary; ++j) {
      r.set(i, j, c.at(i, j) + noise.at(i, j));
    }
  }
  const auto results = run(c, &r, {1, 2, 3, 4}, {2048, 2048});
  for (int64_t i = 0; i < rows; ++i) {
    const double lc = log_sum(c, i), lr = log_sum(r, i);
    double kl = 0;
    for (int64_t j = 0; j < vocabulary; ++j) {
      const double p = std::exp(r.at(i, j) - lr);
      kl += p * ((r.at(i, j) - lr) - (c.at(i, j) - lc));
    }
    // The rounding of 3 float32 sums, each of relative size 2^-22 at most.
    EXPECT_NEAR(results[i].kl, kl, 1e-6);
  }
}

TEST_P(Score, WithoutReference) {
  const auto c = Tensor::random(DType::f32, 3, 100, 1, 3.0);
  const std::vector<int32_t> targets{0, 50, 99};
  const auto results = run(c, nullptr, targets, {64, 36});
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(results[i].nll, log_sum(c, i) - c.at(i, targets[i]), 1e-5);
    EXPECT_EQ(results[i].kl, 0);
    EXPECT_EQ(results[i].reference_nll, 0);
    EXPECT_EQ(results[i].agrees, 1);
  }
}

TEST_P(Score, FarApartAndMasked) {
  const float none = -std::numeric_limits<float>::infinity();
  const int64_t n = 48;
  auto c = Tensor::random(DType::f32, 2, n, 1, 30.0);
  auto r = Tensor::random(DType::f32, 2, n, 2, 30.0);
  for (int64_t j = 0; j < 20; ++j) {
    c.set(0, j, none);  // a whole tile of the vocabulary, in both models
    r.set(0, j, none);
    c.set(1, j, c.at(1, j) + 5000.0f);
  }
  const std::vector<int32_t> targets{40, 3};
  const auto results = run(c, &r, targets, {20, 28});
  const double lc = log_sum(c, 0), lr = log_sum(r, 0);
  double kl = 0;
  for (int64_t j = 20; j < n; ++j) {
    const double p = std::exp(r.at(0, j) - lr);
    kl += p * ((r.at(0, j) - lr) - (c.at(0, j) - lc));
  }
  EXPECT_NEAR(results[0].nll, lc - c.at(0, 40), 1e-4);
  EXPECT_NEAR(results[0].kl, kl, 1e-4);
  EXPECT_NEAR(results[1].nll, log_sum(c, 1) - c.at(1, 3), 1e-3);
}

TEST_P(Score, FirstOfEqualLogitsWins) {
  Tensor c(DType::f32, 1, 64), r(DType::f32, 1, 64);
  for (int64_t j = 0; j < 64; ++j) {
    c.set(0, j, 1.0f);
    r.set(0, j, j == 0 ? 2.0f : 1.0f);
  }
  EXPECT_EQ(run(c, &r, {5}, {32, 32})[0].agrees, 1);
  r.set(0, 33, 2.5f);
  EXPECT_EQ(run(c, &r, {5}, {32, 32})[0].agrees, 0);
}

TEST_P(Score, NotANumberIsNotHidden) {
  auto c = Tensor::random(DType::f32, 1, 64, 1);
  const auto r = Tensor::random(DType::f32, 1, 64, 2);
  c.set(0, 10, std::numeric_limits<float>::quiet_NaN());
  const auto results = run(c, &r, {5}, {32, 32});
  EXPECT_TRUE(std::isnan(results[0].nll));
  EXPECT_TRUE(std::isnan(results[0].kl));
}

INSTANTIATE_KERNEL_TEST(Score);

}  // namespace

}  // namespace pennyweight::kernels
