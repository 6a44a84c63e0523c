#pragma once

#include "kernels/kernels.h"

/// Rows gathered and added up, which brings tokens to their experts and back.
/// The rules of kernels.h hold.
namespace pennyweight::kernels {

/// out[i] = sum over j < count of weights[i, j] * x[index[i, j] / divisor],
/// rows of `columns` values, added up in float32 in the order of j. Where there
/// are no weights, they are 1.
struct MixRowsArgs {
  int64_t rows = 0;  // of out
  int64_t columns = 0;
  int64_t count = 1;
  uint32_t divisor = 1;
  ConstMatrix x{};
  const uint32_t* index = nullptr;  // [rows, count]
  const float* weights = nullptr;   // [rows, count]; optional
  Matrix out{};
};

/// out[i, j] = the dot product of the rows y[i] and x[index[i, j]], float32.
struct DotRowsArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t count = 1;
  ConstMatrix y{};
  ConstMatrix x{};
  const uint32_t* index = nullptr;  // [rows, count]
  float* out = nullptr;             // [rows, count]
};

}  // namespace pennyweight::kernels
