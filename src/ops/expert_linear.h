#pragma once

#include "ops/ops.h"

namespace pennyweight::ops {

/// One expert's weight, dense [out, in] or packed, and bias [out].
struct ExpertWeight {
  std::optional<mx::array> dense;
  std::optional<QuantizedWeight> packed;
  std::optional<mx::array> bias;
};

/// Each row of x [rows, in] through its own expert's linear. expert uint32
/// [rows] names the expert of each row; rows must stand sorted by it. All
/// experts are of one shape and form. An expert without rows is not read.
/// There are gradients by x and biases, and of dense experts by their weights
/// (float32); packed ones have none by what they are packed as.
/// The result is [rows, out] in `out_dtype`, x's dtype when not given.
mx::array expert_linear(
    const mx::array& x,
    const std::vector<ExpertWeight>& experts,
    const mx::array& expert,
    std::optional<mx::Dtype> out_dtype = std::nullopt);

}  // namespace pennyweight::ops
