#pragma once

#include "kernels/kernels.h"

/// The number formats of packed weights.
namespace pennyweight::kernels {

/// Values of the 16 codes of e2m1 and the 256 of e4m3 and e8m0 (OCP
/// Microscaling Formats 1.0). As in MLX, e8m0's 255 is infinity, not NaN.
const float* e2m1_values();
const float* e4m3_values();
const float* e8m0_values();

/// Code `index` of a row whose bit stream starts at `row`.
inline uint32_t code_at(const uint8_t* row, int bits, int64_t index) {
  const int64_t bit = index * bits;
  const uint8_t* at = row + bit / 8;
  const int shift = int(bit % 8);
  uint32_t word = at[0];
  if (shift + bits > 8) {
    word |= uint32_t(at[1]) << 8;
  }
  return (word >> shift) & ((1u << bits) - 1u);
}

inline int64_t code_bytes_per_row(const QuantizedMatrix& weight) {
  return weight.columns * weight.bits / 8;
}

/// What a code stands for before the scale, by code; null for affine, whose
/// codes are their own values.
const float* code_values(QuantMode mode);

/// Scale and bias of `index` in the row-major array of groups.
struct GroupScale {
  float scale;
  float bias;
};
GroupScale group_scale(const QuantizedMatrix& weight, int64_t index);

}  // namespace pennyweight::kernels
