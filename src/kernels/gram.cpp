#include <algorithm>

#include "kernels/access.h"
#include "kernels/dispatch.h"
#include "kernels/scratch.h"
#include "kernels/threads.h"

namespace pennyweight::kernels {

namespace {

// Rows that go into one product: with them its panels stay in the caches.
constexpr int64_t kMostRows = 1024;
constexpr int64_t kTile = 16;

template <class T>
void transpose(const ConstMatrix& x, int64_t rows, int64_t columns, T* out) {
  const auto* from = static_cast<const T*>(x.data);
  parallel_ranges(columns, kTile, [&](int64_t first, int64_t last) {
    for (int64_t j = first; j < last; j += kTile) {
      const int64_t end = std::min(last, j + kTile);
      for (int64_t i = 0; i < rows; i += kTile) {
        const int64_t stop = std::min(rows, i + kTile);
        for (int64_t c = j; c < end; ++c) {
          for (int64_t r = i; r < stop; ++r) {
            out[c * rows + r] = from[r * x.stride + c];
          }
        }
      }
    }
  });
}

ConstMatrix by_columns(
    const ConstMatrix& x,
    int64_t rows,
    int64_t columns,
    Scratch& scratch) {
  return visit_type(x.type, [&](auto* null) -> ConstMatrix {
    using T = std::remove_pointer_t<decltype(null)>;
    T* flat = scratch.get<T>(rows * columns);
    transpose(x, rows, columns, flat);
    // Without gaps, which would keep oneDNN from its fastest products.
    return {flat, x.type, rows};
  });
}

}  // namespace

void gram(const GramArgs& args) {
  thread_local Scratch scratch_a, scratch_b;
  const Matrix& out = args.out;
  const bool same = args.a.data == args.b.data && args.m == args.n;
  for (int64_t row = 0; row < args.rows; row += kMostRows) {
    const int64_t rows = std::min(kMostRows, args.rows - row);
    const auto a = by_columns(from_row(args.a, row), rows, args.m, scratch_a);
    const auto b =
        same ? a : by_columns(from_row(args.b, row), rows, args.n, scratch_b);
    matmul(
        {.m = args.m,
         .n = args.n,
         .k = rows,
         .x = a,
         .weight = b,
         .bias = {},
         .residual = {out.data, out.type, out.stride},
         .out = out});
  }
}

}  // namespace pennyweight::kernels
