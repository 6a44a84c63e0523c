// Products of matrices that stay in a core's cache. Included once for each
// instruction set, hence no #pragma once.
#if defined(PENNYWEIGHT_SIMD_PRODUCT_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef PENNYWEIGHT_SIMD_PRODUCT_INL_H
#undef PENNYWEIGHT_SIMD_PRODUCT_INL_H
#else
#define PENNYWEIGHT_SIMD_PRODUCT_INL_H
#endif

#include "kernels/simd/vec_inl.h"

HWY_BEFORE_NAMESPACE();

namespace pennyweight::kernels::HWY_NAMESPACE {

/// A matrix whose value (i, j) stands at data[i * row + j * column].
struct Strided {
  const float* data;
  int64_t row, column;
};

template <int kRows, int kVectors>
HWY_INLINE void add_block(
    const Strided& a,
    int64_t depth,
    const float* b,
    int64_t stride,
    float* out,
    int64_t out_stride) {
  const Floats d;
  const int64_t step = lanes();
  Vec sums[kRows][kVectors];
  HWY_UNROLL(4)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(2)
    for (int w = 0; w < kVectors; ++w) {
      sums[r][w] = load(out + r * out_stride + w * step);
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vec row[kVectors];
    HWY_UNROLL(2)
    for (int w = 0; w < kVectors; ++w) {
      row[w] = load(b + k * stride + w * step);
    }
    HWY_UNROLL(4)
    for (int r = 0; r < kRows; ++r) {
      const Vec factor = hn::Set(d, a.data[r * a.row + k * a.column]);
      HWY_UNROLL(2)
      for (int w = 0; w < kVectors; ++w) {
        sums[r][w] = hn::MulAdd(factor, row[w], sums[r][w]);
      }
    }
  }
  HWY_UNROLL(4)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(2)
    for (int w = 0; w < kVectors; ++w) {
      store(sums[r][w], out + r * out_stride + w * step);
    }
  }
}

/// out [rows, columns] += a [rows, depth] b [depth, columns]; rows of b and out
/// are `columns` long, which are whole vectors.
inline void add_product(
    int64_t rows,
    int64_t depth,
    int64_t columns,
    const Strided& a,
    const float* b,
    float* out) {
  const int64_t step = lanes();
  for (int64_t j = 0; j < columns;) {
    const bool wide = j + 2 * step <= columns;
    for (int64_t i = 0; i < rows;) {
      const bool high = i + 4 <= rows;
      const Strided own{a.data + i * a.row, a.row, a.column};
      float* to = out + i * columns + j;
      const auto run = wide ? (high ? add_block<4, 2> : add_block<1, 2>)
                            : (high ? add_block<4, 1> : add_block<1, 1>);
      run(own, depth, b + j, columns, to, columns);
      i += high ? 4 : 1;
    }
    j += wide ? 2 * step : step;
  }
}

/// Of two rows of n values, which are whole vectors.
inline float row_dot(const float* a, const float* b, int64_t n) {
  Vec sum = hn::Zero(Floats());
  for (int64_t i = 0; i < n; i += lanes()) {
    sum = hn::MulAdd(load(a + i), load(b + i), sum);
  }
  return sum_of(sum);
}

/// out = factor x, likewise.
inline void scale_to(float factor, const float* x, float* out, int64_t n) {
  const Vec by = hn::Set(Floats(), factor);
  for (int64_t i = 0; i < n; i += lanes()) {
    store(hn::Mul(by, load(x + i)), out + i);
  }
}

/// out += factor x, likewise.
inline void add_scaled(float factor, const float* x, float* out, int64_t n) {
  const Vec by = hn::Set(Floats(), factor);
  for (int64_t i = 0; i < n; i += lanes()) {
    store(hn::MulAdd(by, load(x + i), load(out + i)), out + i);
  }
}

}  // namespace pennyweight::kernels::HWY_NAMESPACE

HWY_AFTER_NAMESPACE();

#endif
