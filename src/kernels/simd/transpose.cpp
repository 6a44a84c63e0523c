#include "kernels/simd/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd/transpose.cpp"
#include <hwy/foreach_target.h>
// clang-format keeps the order: the targets come first.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <utility>

#include "kernels/simd/export.h"
#include "kernels/simd/simd.h"
#include "kernels/threads.h"

HWY_BEFORE_NAMESPACE();

namespace pennyweight::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// Interleaves the first half of the rows with the second. The fold unrolls,
/// so that rows stay in registers.
template <class D, class V, size_t... kIndex>
HWY_INLINE void
interleave_halves(D d, const V* rows, V* next, std::index_sequence<kIndex...>) {
  constexpr size_t kHalf = sizeof...(kIndex);
  ((next[2 * kIndex] =
        hn::InterleaveLower(d, rows[kIndex], rows[kIndex + kHalf]),
    next[2 * kIndex + 1] =
        hn::InterleaveUpper(d, rows[kIndex], rows[kIndex + kHalf])),
   ...);
}

template <class D, class T, class V, size_t... kIndex>
HWY_INLINE void load_rows(
    D d,
    const T* x,
    int64_t stride,
    V* rows,
    std::index_sequence<kIndex...>) {
  ((rows[kIndex] = hn::LoadU(d, x + int64_t(kIndex) * stride)), ...);
}

template <class D, class T, class V, size_t... kIndex>
HWY_INLINE void store_rows(
    D d,
    const V* rows,
    T* out,
    int64_t stride,
    std::index_sequence<kIndex...>) {
  (hn::StoreU(rows[kIndex], d, out + int64_t(kIndex) * stride), ...);
}

/// A square of 16-byte vectors: 8 x 8 halves or 4 x 4 words. Interleaving
/// halves log2(side) times transposes it.
template <class T>
HWY_INLINE void
transpose_square(const T* x, int64_t stride, T* out, int64_t out_stride) {
  constexpr size_t kSide = 16 / sizeof(T);
  const hn::FixedTag<T, kSide> d;
  const std::make_index_sequence<kSide> all;
  const std::make_index_sequence<kSide / 2> half;
  hn::Vec<decltype(d)> rows[kSide], next[kSide];
  load_rows(d, x, stride, rows, all);
  interleave_halves(d, rows, next, half);
  interleave_halves(d, next, rows, half);
  if constexpr (kSide == 8) {
    interleave_halves(d, rows, next, half);
    store_rows(d, next, out, out_stride, all);
  } else {
    store_rows(d, rows, out, out_stride, all);
  }
}

/// A tile from rows [i, last) of a cache line's columns [j, end). Whole lines
/// of the result are written one after the other: at a stride that is a power
/// of two they share few places in the nearest cache.
template <class T>
HWY_INLINE void transpose_tile(
    const TransposeArgs& args,
    int64_t i,
    int64_t last,
    int64_t j,
    int64_t end) {
  constexpr int64_t kSide = 16 / sizeof(T);
  const auto* x = static_cast<const T*>(args.x.data);
  auto* out = static_cast<T*>(args.out);
  const int64_t even_rows = i + (last - i) / kSide * kSide;
  const int64_t even_columns = j + (end - j) / kSide * kSide;
  for (int64_t c = j; c < even_columns; c += kSide) {
    for (int64_t r = i; r < even_rows; r += kSide) {
      transpose_square(
          x + r * args.x.stride + c,
          args.x.stride,
          out + c * args.out_stride + r,
          args.out_stride);
    }
  }
  for (int64_t c = j; c < end; ++c) {
    for (int64_t r = c < even_columns ? even_rows : i; r < last; ++r) {
      out[c * args.out_stride + r] = x[r * args.x.stride + c];
    }
  }
}

template <class T>
void transpose_typed(const TransposeArgs& args) {
  constexpr int64_t kTile = 64 / sizeof(T);
  constexpr int64_t kAhead = 2;
  const int64_t bands = (args.rows + kTile - 1) / kTile;
  parallel_ranges(bands, 1, [&](int64_t first, int64_t end) {
    for (int64_t band = first; band < end; ++band) {
      const int64_t i = band * kTile;
      const int64_t last = std::min(args.rows, i + kTile);
      for (int64_t j = 0; j < args.columns; j += kTile) {
        // These are more rows than the processor prefetches by itself.
        for (int64_t r = i; r < last; ++r) {
          hwy::Prefetch(
              static_cast<const T*>(args.x.data) + r * args.x.stride + j +
              kAhead * kTile);
        }
        transpose_tile<T>(args, i, last, j, std::min(args.columns, j + kTile));
      }
    }
  });
}

void transpose(const TransposeArgs& args) {
  if (size_of(args.x.type) == 2) {
    transpose_typed<uint16_t>(args);
  } else {
    transpose_typed<uint32_t>(args);
  }
}

}  // namespace pennyweight::kernels::HWY_NAMESPACE

HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace pennyweight::kernels {

SIMD_EXPORT(transpose, TransposeArgs)

}  // namespace pennyweight::kernels

#endif
