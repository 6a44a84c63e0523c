#include "kernels/distill.h"

#include <algorithm>
#include <numeric>

#include "kernels/kernel_test.h"
#include "kernels/quant_codes.h"
#include "kernels/reference/reference.h"

namespace pennyweight::kernels {

namespace {

class Distill : public KernelTest {};

TEST_P(Distill, KlRows) {
  for (DType type : {DType::f32, DType::bf16}) {
    for (int64_t columns : {1, 17, 1000, 5003}) {
      for (float cap : {0.0f, 20.0f}) {
        const auto logits = Tensor::random(DType::f32, 3, columns, 1, 4.0, 5);
        const auto other = Tensor::random(DType::f32, 3, columns, 2, 4.0);
        Tensor actual(type, 3, columns, 2), expected(DType::f32, 3, columns);
        std::vector<float> loss(3), expected_loss(3);
        KlRowsArgs args{
            .rows = 3,
            .columns = columns,
            .temperature = 2,
            .cap = cap,
            .factor = 0.5f,
            .logits = logits.view(),
            .reference = other.view(),
            .loss = loss.data(),
            .dlogits = actual.out()};
        kernels().kl_rows(args);
        args.loss = expected_loss.data();
        args.dlogits = expected.out();
        reference::kl_rows(args);
        for (int64_t i = 0; i < 3; ++i) {
          // Differences of logits up to 2 * 16 / 2, in float32.
          EXPECT_NEAR(loss[size_t(i)], expected_loss[size_t(i)], 64 * 0x1p-23);
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

TEST_P(Distill, KlRowsIsTheSlope) {
  auto logits = Tensor::random(DType::f32, 1, 9, 1, 2.0);
  const auto other = Tensor::random(DType::f32, 1, 9, 2, 2.0);
  const auto run = [&](Tensor& slopes) {
    float loss = 0;
    kernels().kl_rows(
        {.rows = 1,
         .columns = 9,
         .temperature = 2,
         .logits = logits.view(),
         .reference = other.view(),
         .loss = &loss,
         .dlogits = slopes.out()});
    return double(loss);
  };
  Tensor slopes(DType::f32, 1, 9), unused(DType::f32, 1, 9);
  run(slopes);
  for (int64_t j = 0; j < 9; ++j) {
    const float before = logits.at(0, j);
    logits.set(0, j, before + 0x1p-6f);
    double slope = run(unused);
    logits.set(0, j, before - 0x1p-6f);
    slope = (slope - run(unused)) / 0x1p-5;
    logits.set(0, j, before);
    EXPECT_NEAR(slopes.at(0, j), slope, 1e-4);
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

// With all columns as the largest, it is the divergence of whole rows.
TEST(KlTop, OfAllColumnsIsKlRows) {
  const auto logits = Tensor::random(DType::f32, 4, 100, 1, 4.0);
  const auto other = Tensor::random(DType::f32, 4, 100, 2, 4.0);
  Tensor actual(DType::f32, 4, 100), expected(DType::f32, 4, 100);
  std::vector<float> loss(4), expected_loss(4);
  std::vector<uint32_t> columns(400);
  for (size_t i = 0; i < 400; ++i) {
    columns[i] = uint32_t(i % 100);
  }
  kl_top(
      {.rows = 4,
       .columns = 100,
       .temperature = 2,
       .logits = logits.view(),
       .reference = {100, other.view(), columns.data()},
       .loss = loss.data(),
       .dlogits = actual.out()});
  reference::kl_rows(
      {.rows = 4,
       .columns = 100,
       .temperature = 2,
       .logits = logits.view(),
       .reference = other.view(),
       .loss = expected_loss.data(),
       .dlogits = expected.out()});
  for (int64_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(loss[size_t(i)], expected_loss[size_t(i)], 32 * 0x1p-23);
    for (int64_t j = 0; j < 100; ++j) {
      EXPECT_NEAR(actual.at(i, j), expected.at(i, j), 16 * 0x1p-24);
    }
  }
}

}  // namespace

}  // namespace pennyweight::kernels
