#include <algorithm>

#include "kernels/access.h"
#include "kernels/dispatch.h"
#include "kernels/scratch.h"
#include "kernels/threads.h"

namespace pennyweight::kernels {

namespace {

// Rows that go into one product: its panels stay within the shared cache.
constexpr int64_t kMostRows = 2048;
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

}  // namespace

void gram(const GramArgs& args) {
  Scratch scratch;
  const Matrix& out = args.out;
  for (int64_t row = 0; row < args.rows; row += kMostRows) {
    const int64_t rows = std::min(kMostRows, args.rows - row);
    visit_type(args.a.type, [&](auto* null) {
      using T = std::remove_pointer_t<decltype(null)>;
      T* flat = scratch.get<T>(rows * args.m);
      transpose(from_row(args.a, row), rows, args.m, flat);
      matmul(
          {.m = args.m,
           .n = args.n,
           .k = rows,
           .x = {flat, args.a.type, rows},
           .weight = from_row(args.b, row),
           .bias = {},
           .residual = {out.data, out.type, out.stride},
           .out = out,
           .weight_by_depth = true});
    });
  }
}

}  // namespace pennyweight::kernels
