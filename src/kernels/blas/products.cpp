#include <algorithm>
#include <limits>

#include "kernels/access.h"
#include "kernels/blas/blas.h"
#include "kernels/blas/cblas.h"
#include "kernels/scratch.h"
#include "kernels/simd/simd.h"
#include "kernels/threads.h"
#include "kernels/tiled/tiles.h"

namespace pennyweight::kernels::blas {

namespace {

// A task makes a tile of the result, over all of the depth, in parts of it that
// bound the copies of operands. Wider tiles would cost a BLAS less packing and
// leave less to share among threads.
constexpr int64_t kTileRows = 512;
constexpr int64_t kTileColumns = 512;
constexpr int64_t kPartDepth = 4096;
// Smaller ones where a product has few of these, down to a quarter.
constexpr int64_t kFewTiles = 8;
constexpr int64_t kLeastSide = 128;
// Multiplications of a tile that are worth a task.
constexpr int64_t kWorth = int64_t{1} << 23;

/// The tiles of a product, by its shape alone.
ProductTiles tiles_of(const MatmulArgs& args) {
  ProductTiles tiles{
      std::min(args.m, kTileRows), std::min(args.n, kTileColumns)};
  for (;;) {
    const int64_t count =
        divide_up(args.m, tiles.rows) * divide_up(args.n, tiles.columns);
    int64_t& side = tiles.rows >= tiles.columns ? tiles.rows : tiles.columns;
    const int64_t half = round_up(divide_up(side, 2), 16);
    const int64_t work = tiles.rows * tiles.columns * args.k / 2;
    if (count >= kFewTiles || half < kLeastSide || work < kWorth) {
      return tiles;
    }
    side = half;
  }
}

/// What a thread keeps: copies of operands as float32, and sums that are
/// rounded into a result of another type.
struct Buffers {
  Scratch x, weight, sums;
};

/// x [rows, columns] as float32: itself or a copy.
ConstMatrix as_floats(
    const ConstMatrix& x,
    int64_t rows,
    int64_t columns,
    Scratch& scratch) {
  if (x.type == DType::f32) {
    return x;
  }
  const Matrix copy{scratch.get<float>(rows * columns), DType::f32, columns};
  simd::convert({rows, columns, x, copy});
  return as_const(copy);
}

/// sums (+)= the product of a part of the depth.
void multiply_part(
    const MatmulArgs& args,
    int64_t from,
    bool add,
    const Matrix& sums,
    Buffers& buffers) {
  const int64_t depth = std::min(kPartDepth, args.k - from);
  const auto x = as_floats(from_column(args.x, from), args.m, depth, buffers.x);
  const auto weight = args.weight_by_depth
      ? as_floats(from_row(args.weight, from), depth, args.n, buffers.weight)
      : as_floats(
            from_column(args.weight, from), args.n, depth, buffers.weight);
  library().sgemm(
      kRowMajor,
      kAsStored,
      args.weight_by_depth ? kAsStored : kTransposed,
      int(args.m),
      int(args.n),
      int(depth),
      1.0f,
      static_cast<const float*>(x.data),
      int(x.stride),
      static_cast<const float*>(weight.data),
      int(weight.stride),
      add ? 1.0f : 0.0f,
      static_cast<float*>(sums.data),
      int(sums.stride));
}

void add_bias(const MatmulArgs& args, const Matrix& sums) {
  for (int64_t i = 0; i < args.m; ++i) {
    auto* row = static_cast<float*>(sums.data) + i * sums.stride;
    for (int64_t j = 0; j < args.n; ++j) {
      row[j] += load_at(args.bias.data, args.bias.type, j);
    }
  }
}

void multiply_tile(const MatmulArgs& args, Buffers& buffers) {
  const bool in_place = args.out.type == DType::f32;
  const Matrix sums = in_place
      ? args.out
      : Matrix{buffers.sums.get<float>(args.m * args.n), DType::f32, args.n};
  const bool adds = args.residual.data != nullptr;
  if (adds && args.residual.data != sums.data) {
    simd::convert({args.m, args.n, args.residual, sums});
  }
  for (int64_t from = 0; from < args.k; from += kPartDepth) {
    multiply_part(args, from, adds || from > 0, sums, buffers);
  }
  if (args.bias.data != nullptr) {
    add_bias(args, sums);
  }
  if (!in_place) {
    simd::convert({args.m, args.n, as_const(sums), args.out});
  }
}

/// Whether sizes and strides are ones that a BLAS takes.
bool fits(const MatmulArgs& args) {
  constexpr int64_t kMost = std::numeric_limits<int>::max();
  return args.k > 0 &&
      std::max({args.x.stride, args.weight.stride, args.out.stride}) <= kMost;
}

ProductServer& server() {
  static ProductServer& own = product_server("BLAS " + library().name);
  return own;
}

}  // namespace

bool available() {
  return simd::available() && library().sgemm != nullptr;
}

std::string_view target_name() {
  return library().target;
}

std::string version() {
  return library().name;
}

void matmul(const MatmulArgs& args) {
  if (args.m == 0 || args.n == 0) {
    return;
  }
  const bool few = args.m <= simd::kFewRows && !args.weight_by_depth;
  if (few || !fits(args)) {
    return simd::matmul(args);  // few rows are bound by memory
  }
  const CountedProduct counted(server(), args.m, args.n, args.k, args.x.type);
  const auto tiles = tiles_of(args);
  const int64_t across = divide_up(args.n, tiles.columns);
  parallel_tasks(divide_up(args.m, tiles.rows) * across, [&](int64_t i) {
    thread_local Buffers buffers;
    multiply_tile(
        block_of(
            args,
            {i / across * tiles.rows, tiles.rows},
            {i % across * tiles.columns, tiles.columns}),
        buffers);
  });
}

void quantized_matmul(const QuantizedMatmulArgs& args) {
  if (args.m <= simd::kFewRows) {
    return simd::quantized_few_rows(args);
  }
  quantized_matmul_by_panels(args, blas::matmul, DType::f32);
}

void gram(const GramArgs& args) {
  gram_by_products(args, blas::matmul, simd::transpose);
}

void attention(const AttentionArgs& args) {
  attention_by_tiles(args, blas::matmul, DType::f32);
}

void attention_backward(const AttentionBackwardArgs& args) {
  attention_backward_by_tiles(args, blas::matmul, DType::f32);
}

}  // namespace pennyweight::kernels::blas
