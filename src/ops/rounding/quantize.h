#pragma once

#include "format/quant_spec.h"
#include "ops/ops.h"

namespace pennyweight {

/// Round to nearest: exactly what mx::quantize and so mlx_lm.convert writes.
/// weight [..., in] float; codes, scales and biases as in QuantizedWeight.
ops::QuantizedWeight quantize(const mx::array& weight, const QuantSpec& spec);

}  // namespace pennyweight
