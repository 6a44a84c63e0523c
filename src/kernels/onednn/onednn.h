#pragma once

#include <string_view>

#include "kernels/backward.h"
#include "kernels/kernels.h"

/// Matrix products by oneDNN, which picks AMX, AVX-512 or AVX2 at run time.
/// Only where PENNYWEIGHT_HAVE_ONEDNN is defined.
namespace pennyweight::kernels::onednn {

void matmul(const MatmulArgs& args);
void quantized_matmul(const QuantizedMatmulArgs& args);
void attention(const AttentionArgs& args);
void attention_backward(const AttentionBackwardArgs& args);

std::string_view target_name();

}  // namespace pennyweight::kernels::onednn
