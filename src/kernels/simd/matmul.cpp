#include "kernels/simd/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd/matmul.cpp"
#include <hwy/foreach_target.h>
// clang-format keeps the order: the targets come first.
#include <hwy/highway.h>

#include <algorithm>
#include <type_traits>

#include "kernels/access.h"
#include "kernels/scratch.h"
#include "kernels/simd/simd.h"
#include "kernels/simd/vec_inl.h"
#include "kernels/threads.h"
#include "kernels/tiled/tiles.h"

HWY_BEFORE_NAMESPACE();

namespace pennyweight::kernels::HWY_NAMESPACE {

// A task makes one block of the result. For each block of the depth it packs
// the weight into strips of two vectors' width, [depth, 2 * lanes] float32,
// and multiplies x's rows, as float32, with each strip in registers.
constexpr int64_t kBlockRows = 192;
constexpr int64_t kBlockColumns = 256;
constexpr int64_t kBlockDepth = 512;
// Rows of a register tile: 2 accumulators each, of 32 or 16 registers.
constexpr int kTileRows = HWY_TARGET == HWY_AVX3 ? 12 : 6;

int64_t strip_width() {
  return 2 * lanes();
}

/// sums [rows, 2 * lanes] (+)= x [rows, depth] * strip [depth, 2 * lanes].
template <int kRows>
void multiply_tile(
    const float* x,
    int64_t x_stride,
    const float* strip,
    int64_t depth,
    float* sums,
    int64_t stride,
    bool fresh) {
  const Floats d;
  const int64_t step = lanes();
  Vec left[kRows], right[kRows];
  // Unrolled, or the accumulators would not live in registers.
  HWY_UNROLL(12)
  for (int r = 0; r < kRows; ++r) {
    left[r] = fresh ? hn::Zero(d) : load(sums + r * stride);
    right[r] = fresh ? hn::Zero(d) : load(sums + r * stride + step);
  }
  for (int64_t l = 0; l < depth; ++l, strip += 2 * step) {
    const Vec a = load(strip), b = load(strip + step);
    HWY_UNROLL(12)
    for (int r = 0; r < kRows; ++r) {
      const Vec v = hn::Set(d, x[r * x_stride + l]);
      left[r] = hn::MulAdd(v, a, left[r]);
      right[r] = hn::MulAdd(v, b, right[r]);
    }
  }
  HWY_UNROLL(12)
  for (int r = 0; r < kRows; ++r) {
    store(left[r], sums + r * stride);
    store(right[r], sums + r * stride + step);
  }
}

void multiply_strip(
    const float* x,
    int64_t x_stride,
    int64_t rows,
    const float* strip,
    int64_t depth,
    float* sums,
    int64_t stride,
    bool fresh) {
  int64_t i = 0;
  const auto tile = [&]<int kRows>(std::integral_constant<int, kRows>) {
    for (; i + kRows <= rows; i += kRows) {
      multiply_tile<kRows>(
          x + i * x_stride,
          x_stride,
          strip,
          depth,
          sums + i * stride,
          stride,
          fresh);
    }
  };
  tile(std::integral_constant<int, kTileRows>());
  tile(std::integral_constant<int, 3>());
  tile(std::integral_constant<int, 1>());
}

/// Packs weight, [columns, depth] or, by_depth, [depth, columns], into strips.
/// Columns that are missing from the last strip are 0.
void pack_strips(
    const ConstMatrix& weight,
    bool by_depth,
    int64_t columns,
    int64_t depth,
    float* strips) {
  const int64_t width = strip_width();
  HWY_ALIGN float row[kBlockDepth];
  const int64_t padded = (columns + width - 1) / width * width;
  for (int64_t j = 0; j < padded && !by_depth; ++j) {
    float* to = strips + j / width * width * depth + j % width;
    if (j < columns) {
      simd::convert({1, depth, from_row(weight, j), {row, DType::f32, depth}});
    } else {
      std::fill_n(row, depth, 0.0f);
    }
    for (int64_t l = 0; l < depth; ++l) {
      to[l * width] = row[l];
    }
  }
  for (int64_t j = 0; j < padded && by_depth; j += width) {
    float* to = strips + j * depth;
    const int64_t n = std::min(width, columns - j);
    simd::convert({depth, n, from_column(weight, j), {to, DType::f32, width}});
    for (int64_t l = 0; l < depth && n < width; ++l) {
      std::fill(to + l * width + n, to + (l + 1) * width, 0.0f);
    }
  }
}

/// Adds bias and residual to sums [rows, columns] and stores them in out.
void finish_block(
    const MatmulArgs& args,
    int64_t row,
    int64_t column,
    int64_t rows,
    int64_t columns,
    float* sums,
    int64_t stride) {
  for (int64_t i = 0; i < rows; ++i) {
    float* s = sums + i * stride;
    for (int64_t j = 0; j < columns && args.bias.data; ++j) {
      s[j] += load_at(args.bias.data, args.bias.type, column + j);
    }
    for (int64_t j = 0; j < columns && args.residual.data; ++j) {
      s[j] += load_at(args.residual, row + i, column + j);
    }
  }
  const auto out = from_column(from_row(args.out, row), column);
  simd::convert({rows, columns, {sums, DType::f32, stride}, out});
}

struct BlockBuffers {
  Scratch x, strips, sums;
};

void multiply_block(
    const MatmulArgs& args,
    int64_t row,
    int64_t column,
    BlockBuffers& buffers) {
  const int64_t rows = std::min(kBlockRows, args.m - row);
  const int64_t columns = std::min(kBlockColumns, args.n - column);
  const int64_t width = strip_width();
  const int64_t padded = (columns + width - 1) / width * width;
  float* sums = buffers.sums.get<float>(rows * padded);
  float* strips = buffers.strips.get<float>(padded * kBlockDepth);
  for (int64_t from = 0; from < args.k; from += kBlockDepth) {
    const int64_t depth = std::min(kBlockDepth, args.k - from);
    const auto weight = args.weight_by_depth
        ? from_column(from_row(args.weight, from), column)
        : from_column(from_row(args.weight, column), from);
    pack_strips(weight, args.weight_by_depth, columns, depth, strips);
    ConstMatrix x = from_column(from_row(args.x, row), from);
    if (x.type != DType::f32) {
      float* wide = buffers.x.get<float>(rows * depth);
      simd::convert({rows, depth, x, {wide, DType::f32, depth}});
      x = {wide, DType::f32, depth};
    }
    for (int64_t j = 0; j < padded; j += width) {
      multiply_strip(
          static_cast<const float*>(x.data),
          x.stride,
          rows,
          strips + j * depth,
          depth,
          sums + j,
          padded,
          from == 0);
    }
  }
  finish_block(args, row, column, rows, columns, sums, padded);
}

/// Dot products of `kRows` rows x [kRows, k] with rows of the weight.
template <int kRows, class T>
void dot_range(
    const MatmulArgs& args,
    const float* x,
    int64_t first_row,
    int64_t begin,
    int64_t end) {
  const Floats d;
  for (int64_t j = begin; j < end; ++j) {
    const T* weight =
        static_cast<const T*>(args.weight.data) + j * args.weight.stride;
    Vec sums[kRows];
    for (int r = 0; r < kRows; ++r) {
      sums[r] = hn::Zero(d);
    }
    for_vectors(
        args.k,
        [&](int64_t i) HWY_ATTR {
          const Vec w = load(weight + i);
          HWY_UNROLL(4)
          for (int r = 0; r < kRows; ++r) {
            sums[r] = hn::MulAdd(w, load(x + r * args.k + i), sums[r]);
          }
        },
        [&](int64_t i, int64_t rest) HWY_ATTR {
          const Vec w = load_some(weight + i, rest);
          for (int r = 0; r < kRows; ++r) {
            sums[r] =
                hn::MulAdd(w, load_some(x + r * args.k + i, rest), sums[r]);
          }
        });
    for (int r = 0; r < kRows; ++r) {
      float sum = sum_of(sums[r]);
      finish_block(args, first_row + r, j, 1, 1, &sum, 1);
    }
  }
}

/// For at most simd::kFewRows rows: reads the weight once, without packing it.
void multiply_few_rows(const MatmulArgs& args) {
  thread_local Scratch scratch;
  float* x = scratch.get<float>(args.m * args.k);
  simd::convert({args.m, args.k, args.x, {x, DType::f32, args.k}});
  visit_type(args.weight.type, [&]<class T>(T*) {
    parallel_ranges(args.n, row_grain(args.k), [&](int64_t begin, int64_t end) {
      switch (args.m) {
        case 1:
          return dot_range<1, T>(args, x, 0, begin, end);
        case 2:
          return dot_range<2, T>(args, x, 0, begin, end);
        case 3:
          return dot_range<3, T>(args, x, 0, begin, end);
        default:
          return dot_range<4, T>(args, x, 0, begin, end);
      }
    });
  });
}

void matmul(const MatmulArgs& args) {
  if (args.m == 0 || args.n == 0) {
    return;
  }
  if (args.m <= simd::kFewRows && !args.weight_by_depth) {
    return multiply_few_rows(args);
  }
  const int64_t row_blocks = (args.m + kBlockRows - 1) / kBlockRows;
  const int64_t column_blocks = (args.n + kBlockColumns - 1) / kBlockColumns;
  parallel_tasks(row_blocks * column_blocks, [&](int64_t task) {
    thread_local BlockBuffers buffers;
    multiply_block(
        args,
        task / column_blocks * kBlockRows,
        task % column_blocks * kBlockColumns,
        buffers);
  });
}

}  // namespace pennyweight::kernels::HWY_NAMESPACE

HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace pennyweight::kernels {

HWY_EXPORT(matmul);

namespace simd {

ProductServer& server() {
  static ProductServer& own =
      product_server("simd " + std::string(target_name()));
  return own;
}

void matmul(const MatmulArgs& args) {
  const CountedProduct counted(server(), args.m, args.n, args.k, args.x.type);
  HWY_DYNAMIC_DISPATCH(matmul)(args);
}

void quantized_matmul(const QuantizedMatmulArgs& args) {
  if (args.m <= kFewRows) {
    return quantized_few_rows(args);
  }
  quantized_matmul_by_panels(args, matmul, DType::f32);
}

void gram(const GramArgs& args) {
  gram_by_products(args, matmul, simd::transpose);
}

}  // namespace simd

}  // namespace pennyweight::kernels

#endif
