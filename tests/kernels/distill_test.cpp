#include "kernels/distill.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/kernel_test.h"
#include "kernels/quant_codes.h"
#include "kernels/reference/reference.h"
#include "kernels/score_state.h"

namespace pennyweight::kernels {

namespace {

class Distill : public KernelTest {};

/// What scoring has seen of both sides over the temperature.
std::vector<float>
state_of(const Tensor& logits, const Tensor& reference, float temperature) {
  constexpr int64_t kStride = 16;
  const int64_t rows = logits.rows();
  std::vector<float> state(size_t(rows * kStride));
  for (int64_t i = 0; i < rows; ++i) {
    state[size_t(i * kStride + kScoreMax)] = -1e30f;
    state[size_t(i * kStride + kScoreRefMax)] = -1e30f;
  }
  const auto scaled = [&](const Tensor& x) {
    Tensor y(DType::f32, rows, x.columns());
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < x.columns(); ++j) {
        y.set(i, j, x.at(i, j) / temperature);
      }
    }
    return y;
  };
  const std::vector<int32_t> targets(size_t(rows), 0);
  const Tensor s = scaled(logits), r = scaled(reference);
  reference::score_update(
      {.rows = rows,
       .columns = logits.columns(),
       .logits = s.view(),
       .reference = r.view(),
       .targets = targets.data(),
       .state = state.data(),
       .state_stride = kStride});
  return state;
}

TEST_P(Distill, KlSlopes) {
  for (DType type : {DType::f32, DType::bf16}) {
    for (int64_t columns : {1, 17, 1000, 5003}) {
      for (float cap : {0.0f, 20.0f}) {
        const auto logits = Tensor::random(DType::f32, 3, columns, 1, 4.0, 5);
        const auto other = Tensor::random(DType::f32, 3, columns, 2, 4.0);
        Tensor actual(type, 3, columns, 2), expected(DType::f32, 3, columns);
        const auto state = state_of(logits, other, 2);
        KlSlopesArgs args{
            .rows = 3,
            .columns = columns,
            .temperature = 2,
            .cap = cap,
            .factor = 0.5f,
            .logits = logits.view(),
            .reference = other.view(),
            .state = state.data(),
            .state_stride = 16,
            .slopes = actual.out()};
        kernels().kl_slopes(args);
        args.slopes = expected.out();
        reference::kl_slopes(args);
        for (int64_t i = 0; i < 3; ++i) {
          for (int64_t j = 0; j < columns; ++j) {
            expect_close(
                actual.at(i, j), expected.at(i, j), type, 16 * 0x1p-24, "dz");
          }
        }
        actual.expect_gaps_untouched();
      }
    }
  }
}

// Central differences of KL(softmax(r / 2) || softmax(s / 2)) in float64.
TEST_P(Distill, KlSlopesAreTheLosss) {
  const auto logits = Tensor::random(DType::f32, 1, 9, 1, 2.0);
  const auto other = Tensor::random(DType::f32, 1, 9, 2, 2.0);
  const auto loss = [&](int64_t moved, double by) {
    double s[9], r[9], sum_s = 0, sum_r = 0, kl = 0;
    for (int64_t j = 0; j < 9; ++j) {
      s[j] = (double(logits.at(0, j)) + (j == moved ? by : 0)) / 2;
      r[j] = double(other.at(0, j)) / 2;
      sum_s += std::exp(s[j]);
      sum_r += std::exp(r[j]);
    }
    for (int64_t j = 0; j < 9; ++j) {
      kl += std::exp(r[j]) / sum_r *
          (r[j] - std::log(sum_r) - s[j] + std::log(sum_s));
    }
    return kl;
  };
  Tensor slopes(DType::f32, 1, 9);
  const auto state = state_of(logits, other, 2);
  kernels().kl_slopes(
      {.rows = 1,
       .columns = 9,
       .temperature = 2,
       .logits = logits.view(),
       .reference = other.view(),
       .state = state.data(),
       .state_stride = 16,
       .slopes = slopes.out()});
  for (int64_t j = 0; j < 9; ++j) {
    const double slope = (loss(j, 1e-4) - loss(j, -1e-4)) / 2e-4;
    EXPECT_NEAR(slopes.at(0, j), slope, 1e-6);
  }
}

TEST_P(Distill, GroupGradient) {
  for (int bits : {2, 3, 4, 5, 6, 8}) {
    const int64_t rows = 5, columns = 192;
    std::vector<uint8_t> codes(size_t(rows * columns * bits / 8));
    for (size_t i = 0; i < codes.size(); ++i) {
      codes[i] = uint8_t(i * 37 + 11);
    }
    const auto dw = Tensor::random(DType::f32, rows, columns, 1, 1.0, 4);
    std::vector<float> out(60), expected(60);
    GroupGradientArgs args{
        .weight =
            {.bits = bits,
             .group = 32,
             .rows = rows,
             .columns = columns,
             .codes = codes.data()},
        .dw = dw.view(),
        .dscales = out.data(),
        .dbiases = out.data() + 30};
    kernels().group_gradient(args);
    args.dscales = expected.data();
    args.dbiases = expected.data() + 30;
    reference::group_gradient(args);
    for (size_t i = 0; i < out.size(); ++i) {
      const double code = i < 30 ? double(1 << bits) : 1;
      EXPECT_NEAR(out[i], expected[i], 32 * 4 * code * 0x1p-24);
    }
  }
}

TEST_P(Distill, Accumulate) {
  auto sum = Tensor::random(DType::f32, 1, 1003, 1);
  const auto before = sum;
  const auto x = Tensor::random(DType::f32, 1, 1003, 2);
  kernels().accumulate(
      {1003,
       static_cast<const float*>(x.data()),
       static_cast<float*>(sum.data())});
  for (int64_t i = 0; i < 1003; ++i) {
    EXPECT_EQ(sum.at(0, i), before.at(0, i) + x.at(0, i));
  }
}

INSTANTIATE_KERNEL_TEST(Distill);

TEST(Top, IsWhatSortingGives) {
  for (int64_t count : {1, 7, 1024, 3000}) {
    auto x = Tensor::random(DType::f32, 3, 3000, 1, 3.0, 5);
    for (int64_t j = 0; j < 3000; j += 3) {
      x.set(1, j, 2.5f);  // many equal ones
    }
    Tensor values(DType::f32, 3, count);
    std::vector<uint32_t> columns(size_t(3 * count));
    top({3, 3000, count, x.view(), values.out(), columns.data()});
    for (int64_t i = 0; i < 3; ++i) {
      std::vector<uint32_t> order(3000);
      std::iota(order.begin(), order.end(), 0u);
      std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
        return x.at(i, a) > x.at(i, b);
      });
      order.resize(size_t(count));
      std::sort(order.begin(), order.end());
      for (int64_t j = 0; j < count; ++j) {
        ASSERT_EQ(columns[size_t(i * count + j)], order[size_t(j)]);
        ASSERT_EQ(values.at(i, j), x.at(i, order[size_t(j)]));
      }
    }
  }
}

// With all columns as the largest, its slopes are those of whole rows.
TEST(KlTop, OfAllColumnsIsKlSlopes) {
  const auto logits = Tensor::random(DType::f32, 4, 100, 1, 4.0);
  const auto other = Tensor::random(DType::f32, 4, 100, 2, 4.0);
  Tensor actual(DType::f32, 4, 100), expected(DType::f32, 4, 100);
  std::vector<float> loss(4);
  kl_top(
      {.rows = 4,
       .count = 100,
       .temperature = 2,
       .values = static_cast<const float*>(logits.data()),
       .reference = other.view(),
       .loss = loss.data(),
       .slopes = static_cast<float*>(actual.data())});
  const auto state = state_of(logits, other, 2);
  reference::kl_slopes(
      {.rows = 4,
       .columns = 100,
       .temperature = 2,
       .logits = logits.view(),
       .reference = other.view(),
       .state = state.data(),
       .state_stride = 16,
       .slopes = expected.out()});
  for (int64_t i = 0; i < 4; ++i) {
    double kl = 0, sum_s = 0, sum_r = 0;
    for (int64_t j = 0; j < 100; ++j) {
      sum_s += std::exp(double(logits.at(i, j)) / 2);
      sum_r += std::exp(double(other.at(i, j)) / 2);
    }
    for (int64_t j = 0; j < 100; ++j) {
      const double away = double(other.at(i, j)) - double(logits.at(i, j));
      kl += std::exp(double(other.at(i, j)) / 2) / sum_r *
          (away / 2 + std::log(sum_s) - std::log(sum_r));
      EXPECT_NEAR(actual.at(i, j), expected.at(i, j), 16 * 0x1p-24);
    }
    EXPECT_NEAR(loss[size_t(i)], kl, 32 * 0x1p-23);
  }
}

// Columns of a tile take their values, others are 0.
TEST(SpreadTop, PutsValuesInTheirColumns) {
  const std::vector<uint32_t> columns{2, 9, 5, 11, 4, 0};
  const std::vector<float> values{1, 2, 3, 4, 5, 6};
  Tensor tile(DType::f32, 2, 4);
  spread_top(
      {.top = {2, 3, columns.data(), 4, 4},
       .values = values.data(),
       .tile = tile.out()});
  const float expected[2][4] = {{0, 3, 0, 0}, {5, 0, 0, 0}};
  for (int64_t i = 0; i < 2; ++i) {
    for (int64_t j = 0; j < 4; ++j) {
      EXPECT_EQ(tile.at(i, j), expected[i][j]);
    }
  }
}

}  // namespace

}  // namespace pennyweight::kernels
