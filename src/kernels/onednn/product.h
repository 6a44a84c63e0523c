#pragma once

#include "kernels/kernels.h"

namespace pennyweight::kernels::onednn {

/// Whether bfloat16 products run on bfloat16 instructions here.
bool has_bfloat16();

/// A matmul whose types oneDNN multiplies as they are: x and weight float32
/// and out float32, or bfloat16 and out either; the residual is of out's type.
void product(const MatmulArgs& args);

}  // namespace pennyweight::kernels::onednn
