#include "kernels/distill.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

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

TEST_P(Distill, KlGradient) {
  for (DType type : {DType::f32, DType::bf16}) {
    for (int64_t columns : {1, 17, 1000, 5003}) {
      for (float cap : {0.0f, 20.0f}) {
        const auto logits = Tensor::random(DType::f32, 3, columns, 1, 4.0, 5);
        const auto other = Tensor::random(DType::f32, 3, columns, 2, 4.0);
        Tensor actual(type, 3, columns, 2), expected(DType::f32, 3, columns);
        const auto state = state_of(logits, other, 2);
        KlGradientArgs args{
            .rows = 3,
            .columns = columns,
            .temperature = 2,
            .cap = cap,
            .factor = 0.5f,
            .logits = logits.view(),
            .reference = other.view(),
            .state = state.data(),
            .state_stride = 16,
            .gradient = actual.out()};
        kernels().kl_gradient(args);
        args.gradient = expected.out();
        reference::kl_gradient(args);
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
TEST_P(Distill, KlGradientIsTheLosss) {
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
  Tensor gradient(DType::f32, 1, 9);
  const auto state = state_of(logits, other, 2);
  kernels().kl_gradient(
      {.rows = 1,
       .columns = 9,
       .temperature = 2,
       .logits = logits.view(),
       .reference = other.view(),
       .state = state.data(),
       .state_stride = 16,
       .gradient = gradient.out()});
  for (int64_t j = 0; j < 9; ++j) {
    const double expected = (loss(j, 1e-4) - loss(j, -1e-4)) / 2e-4;
    EXPECT_NEAR(gradient.at(0, j), expected, 1e-6);
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

// Rows apart, of many equal values, of infinite ones and of zeros of both
// signs.
TEST_P(Distill, Top) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (DType type : {DType::f32, DType::bf16}) {
    for (int64_t count : {1, 7, 1024, 3000}) {
      auto x = Tensor::random(DType::f32, 4, 3000, 1, 3.0, 5);
      for (int64_t j = 0; j < 3000; ++j) {
        if (j % 3 == 0) {
          x.set(1, j, 2.5f);
        }
        x.set(2, j, j % 7 == 0 ? infinity : j % 2 == 0 ? -infinity : 0.5f);
        x.set(3, j, j % 5 == 0 ? -1.0f : j % 2 == 0 ? -0.0f : 0.0f);
      }
      Tensor values(type, 4, count, 2), expected(type, 4, count);
      std::vector<uint32_t> columns(size_t(4 * count)), sorted(columns);
      TopArgs args{4, 3000, count, x.view(), values.out(), columns.data()};
      kernels().top(args);
      args.values = expected.out();
      args.indices = sorted.data();
      reference::top(args);
      EXPECT_EQ(columns, sorted) << count;
      for (int64_t i = 0; i < 4; ++i) {
        for (int64_t j = 0; j < count; ++j) {
          ASSERT_EQ(values.at(i, j), expected.at(i, j)) << i << ", " << j;
        }
      }
      values.expect_gaps_untouched();
    }
  }
}

// The oracle's definition, from outside of it.
TEST_P(Distill, TopIsWhatSortingGives) {
  const auto x = Tensor::random(DType::f32, 1, 100, 1, 3.0);
  Tensor values(DType::f32, 1, 10);
  std::vector<uint32_t> columns(10);
  kernels().top({1, 100, 10, x.view(), values.out(), columns.data()});
  std::vector<float> sorted(100);
  for (int64_t j = 0; j < 100; ++j) {
    sorted[size_t(j)] = x.at(0, j);
  }
  std::sort(sorted.rbegin(), sorted.rend());
  EXPECT_TRUE(std::is_sorted(columns.begin(), columns.end()));
  std::vector<float> found;
  for (int64_t j = 0; j < 10; ++j) {
    EXPECT_EQ(values.at(0, j), x.at(0, columns[size_t(j)]));
    found.push_back(values.at(0, j));
  }
  std::sort(found.rbegin(), found.rend());
  sorted.resize(10);
  EXPECT_EQ(found, sorted);
}

TEST_P(Distill, KlTop) {
  for (DType type : {DType::f32, DType::bf16}) {
    for (int64_t count : {1, 17, 1024}) {
      for (float cap : {0.0f, 20.0f}) {
        const auto values = Tensor::random(DType::f32, 3, count, 1, 4.0);
        const auto other = Tensor::random(type, 3, count, 2, 4.0, 5);
        Tensor actual(DType::f32, 3, count), expected(DType::f32, 3, count);
        std::vector<float> loss(3), expected_loss(3);
        KlTopArgs args{
            .rows = 3,
            .count = count,
            .temperature = 2,
            .cap = cap,
            .factor = 0.5f,
            .values = static_cast<const float*>(values.data()),
            .reference = other.view(),
            .loss = loss.data(),
            .gradient = static_cast<float*>(actual.data())};
        kernels().kl_top(args);
        args.loss = expected_loss.data();
        args.gradient = static_cast<float*>(expected.data());
        reference::kl_top(args);
        for (int64_t i = 0; i < 3; ++i) {
          EXPECT_NEAR(loss[size_t(i)], expected_loss[size_t(i)], 32 * 0x1p-23);
          for (int64_t j = 0; j < count; ++j) {
            const double exact = expected.at(i, j);
            expect_close(actual.at(i, j), exact, DType::f32, 2 * 0x1p-24, "dz");
          }
        }
      }
    }
  }
}

// With all columns as the largest, its gradients are those of whole rows.
TEST_P(Distill, KlTopOfAllColumnsIsKlGradient) {
  const auto logits = Tensor::random(DType::f32, 4, 100, 1, 4.0);
  const auto other = Tensor::random(DType::f32, 4, 100, 2, 4.0);
  Tensor actual(DType::f32, 4, 100), expected(DType::f32, 4, 100);
  std::vector<float> loss(4);
  kernels().kl_top(
      {.rows = 4,
       .count = 100,
       .temperature = 2,
       .values = static_cast<const float*>(logits.data()),
       .reference = other.view(),
       .loss = loss.data(),
       .gradient = static_cast<float*>(actual.data())});
  const auto state = state_of(logits, other, 2);
  reference::kl_gradient(
      {.rows = 4,
       .columns = 100,
       .temperature = 2,
       .logits = logits.view(),
       .reference = other.view(),
       .state = state.data(),
       .state_stride = 16,
       .gradient = expected.out()});
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

INSTANTIATE_KERNEL_TEST(Distill);

// Columns of a tile take their values, others are 0.
TEST(SpreadTop, PutsValuesInTheirColumns) {
  const std::vector<uint32_t> columns{2, 9, 5, 11, 4, 0};
  const std::vector<float> values{1, 2, 3, 4, 5, 6};
  Tensor tile(DType::f32, 2, 4);
  spread_top(
      {.places = {2, 3, columns.data(), 4, 4},
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
