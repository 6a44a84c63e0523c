#pragma once

#include "kernels/kernels.h"

/// Element access by index, for naive kernels, tails and tests.
namespace pennyweight::kernels {

inline float load_at(const void* data, DType type, int64_t index) {
  switch (type) {
    case DType::bf16:
      return to_float(static_cast<const BFloat16*>(data)[index]);
    case DType::f16:
      return to_float(static_cast<const Float16*>(data)[index]);
    default:
      return static_cast<const float*>(data)[index];
  }
}

inline void store_at(void* data, DType type, int64_t index, float value) {
  switch (type) {
    case DType::bf16:
      return from_float(value, static_cast<BFloat16*>(data)[index]);
    case DType::f16:
      return from_float(value, static_cast<Float16*>(data)[index]);
    default:
      static_cast<float*>(data)[index] = value;
  }
}

inline float load_at(const ConstMatrix& x, int64_t row, int64_t column) {
  return load_at(x.data, x.type, row * x.stride + column);
}

inline void
store_at(const Matrix& x, int64_t row, int64_t column, float value) {
  store_at(x.data, x.type, row * x.stride + column, value);
}

inline const void* advance(const void* data, DType type, int64_t elements) {
  return static_cast<const char*>(data) + elements * int64_t(size_of(type));
}

inline void* advance(void* data, DType type, int64_t elements) {
  return static_cast<char*>(data) + elements * int64_t(size_of(type));
}

/// Where the values of a head's row begin.
inline const void* element_at(
    const HeadsView& x,
    DType type,
    int64_t batch,
    int64_t row,
    int64_t head) {
  return advance(
      x.data,
      type,
      batch * x.batch_stride + row * x.row_stride + head * x.head_stride);
}

inline ConstMatrix as_const(const Matrix& x) {
  return {x.data, x.type, x.stride};
}

inline ConstMatrix from_row(const ConstMatrix& x, int64_t row) {
  return x.data == nullptr
      ? x
      : ConstMatrix{advance(x.data, x.type, row * x.stride), x.type, x.stride};
}

inline Matrix from_row(const Matrix& x, int64_t row) {
  return {advance(x.data, x.type, row * x.stride), x.type, x.stride};
}

inline ConstMatrix from_column(const ConstMatrix& x, int64_t column) {
  return x.data == nullptr
      ? x
      : ConstMatrix{advance(x.data, x.type, column), x.type, x.stride};
}

inline Matrix from_column(const Matrix& x, int64_t column) {
  return {advance(x.data, x.type, column), x.type, x.stride};
}

}  // namespace pennyweight::kernels
