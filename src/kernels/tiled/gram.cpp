#include <algorithm>

#include "kernels/access.h"
#include "kernels/scratch.h"
#include "kernels/threads.h"
#include "kernels/tiled/tiles.h"

namespace pennyweight::kernels {

namespace {

// Rows that go into one product: few enough for its panels to stay in the
// caches.
constexpr int64_t kMostGramRows = 1024;
// A symmetric product is made in bands of so many rows, each of which begins at
// the diagonal.
constexpr int64_t kBand = 256;

ConstMatrix by_columns(
    const ConstMatrix& x,
    int64_t rows,
    int64_t columns,
    TransposeFn turn,
    Scratch& scratch) {
  char* flat = scratch.get<char>(rows * columns * int64_t(size_of(x.type)));
  turn(
      {.rows = rows,
       .columns = columns,
       .x = x,
       .out = flat,
       .out_stride = rows});
  // Without gaps, which would keep oneDNN from its fastest products.
  return {flat, x.type, rows};
}

/// out [m, n] += a [m, k] * b [n, k]^T.
void add_product(
    int64_t m,
    int64_t n,
    int64_t k,
    const ConstMatrix& a,
    const ConstMatrix& b,
    const Matrix& out,
    ProductFn product) {
  product(
      {.m = m,
       .n = n,
       .k = k,
       .x = a,
       .weight = b,
       .bias = {},
       .residual = as_const(out),
       .out = out});
}

/// The same for a = b: what is above the diagonal, and a little below it.
void add_upper(
    int64_t n,
    int64_t k,
    const ConstMatrix& x,
    const Matrix& out,
    ProductFn product) {
  const int64_t bands = std::max<int64_t>(1, n / kBand);
  for (int64_t band = 0; band < bands; ++band) {
    const int64_t first = n * band / bands;
    const int64_t last = n * (band + 1) / bands;
    const auto part = from_row(x, first);
    add_product(
        last - first,
        n - first,
        k,
        part,
        part,
        from_column(from_row(out, first), first),
        product);
  }
}

void copy_to_lower(int64_t n, const Matrix& out) {
  constexpr int64_t kTile = 16;
  auto* values = static_cast<float*>(out.data);
  parallel_tasks((n + kTile - 1) / kTile, [&](int64_t tile) {
    const int64_t first = tile * kTile;
    const int64_t last = std::min(n, first + kTile);
    for (int64_t j = 0; j < last; j += kTile) {
      for (int64_t i = first; i < last; ++i) {
        for (int64_t c = j; c < std::min(i, j + kTile); ++c) {
          values[i * out.stride + c] = values[c * out.stride + i];
        }
      }
    }
  });
}

}  // namespace

bool is_square(const GramArgs& args, const GramArgs::Part& part) {
  return part.a.data == args.b.data && part.a.type == args.b.type &&
      part.a.stride == args.b.stride && part.m == args.n;
}

void complete_squares(const GramArgs& args) {
  int64_t at = 0;
  for (const auto& part : args.parts) {
    if (is_square(args, part)) {
      copy_to_lower(args.n, from_row(args.out, at));
    }
    at += part.m;
  }
}

void gram_by_products(
    const GramArgs& args,
    ProductFn product,
    TransposeFn turn) {
  thread_local Scratch scratch_a, scratch_b;
  for (int64_t row = 0; row < args.rows; row += kMostGramRows) {
    const int64_t rows = std::min(kMostGramRows, args.rows - row);
    const auto b =
        by_columns(from_row(args.b, row), rows, args.n, turn, scratch_b);
    int64_t at = 0;
    for (const auto& part : args.parts) {
      const auto out = from_row(args.out, at);
      at += part.m;
      if (is_square(args, part)) {
        add_upper(args.n, rows, b, out, product);
        continue;
      }
      const auto a =
          by_columns(from_row(part.a, row), rows, part.m, turn, scratch_a);
      add_product(part.m, args.n, rows, a, b, out, product);
    }
  }
  complete_squares(args);
}

}  // namespace pennyweight::kernels
