#pragma once

#include "format/quant_spec.h"
#include "method/gptq/gptq.h"
#include "ops/ops.h"

namespace pennyweight {

/// Codes and grids of a weight [rows, columns] as MLX stores them, scales and
/// biases in `dtype`, evaluated.
ops::QuantizedWeight
pack_result(const GptqResult& result, const QuantSpec& spec, mx::Dtype dtype);

}  // namespace pennyweight
