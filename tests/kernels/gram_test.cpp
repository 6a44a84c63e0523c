#include "kernels/kernel_test.h"

namespace pennyweight::kernels {

namespace {

/// The sums of a [rows, m] and of b itself, on top of what stood there.
class Gram : public KernelTest {
 protected:
  void check(DType type, int64_t rows, int64_t m, int64_t n, int64_t gap) {
    const auto a = Tensor::random(type, rows, m, 1, 1.0, gap);
    const auto b = Tensor::random(type, rows, n, 2, 1.0, gap);
    auto out = Tensor::random(DType::f32, m + n, n, 3);
    // Of a sum of b itself the lower half is copied, and so begins alike.
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < i; ++j) {
        out.set(m + i, j, out.at(m + j, i));
      }
    }
    const auto before = out;
    kernels().gram(
        {.rows = rows,
         .n = n,
         .b = b.view(),
         .parts = {{m, a.view()}, {n, b.view()}},
         .out = out.out()});
    for (int64_t i = 0; i < m + n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double sum = before.at(i, j);
        double magnitude = std::abs(sum);
        for (int64_t row = 0; row < rows; ++row) {
          const double term =
              double(i < m ? a.at(row, i) : b.at(row, i - m)) * b.at(row, j);
          sum += term;
          magnitude += std::abs(term);
        }
        const double slack = double(rows + 1) * 0x1p-24 * magnitude;
        expect_close(
            out.at(i, j),
            sum,
            DType::f32,
            slack,
            type_name(type) + " " + std::to_string(i) + ", " +
                std::to_string(j));
      }
    }
  }
};

TEST_P(Gram, MatchesDoubles) {
  for (DType type : {DType::f32, DType::bf16, DType::f16}) {
    check(type, 1, 3, 5, 0);
    check(type, 33, 17, 40, 7);
    check(type, 70, 90, 100, 0);
    check(type, 100, 64, 300, 5);
  }
}

TEST_P(Gram, ManyRows) {
  for (DType type : {DType::f32, DType::bf16}) {
    check(type, 2100, 20, 70, 0);
  }
}

INSTANTIATE_KERNEL_TEST(Gram);

}  // namespace

}  // namespace pennyweight::kernels
