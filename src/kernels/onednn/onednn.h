#pragma once

#include <string>
#include <string_view>

#include "kernels/backward.h"
#include "kernels/kernels.h"

/// Matrix products by oneDNN, which picks AMX, AVX-512 or AVX2 at run time.
/// Only where PENNYWEIGHT_HAVE_ONEDNN is defined.
namespace pennyweight::kernels::onednn {

void matmul(const MatmulArgs& args);
void quantized_matmul(const QuantizedMatmulArgs& args);
void gram(const GramArgs& args);
void attention(const AttentionArgs& args);
void attention_backward(const AttentionBackwardArgs& args);

/// The same with every product in float32, into which bfloat16 goes exactly.
void matmul_f32(const MatmulArgs& args);
void quantized_matmul_f32(const QuantizedMatmulArgs& args);
void gram_f32(const GramArgs& args);
void attention_f32(const AttentionArgs& args);
void attention_backward_f32(const AttentionBackwardArgs& args);

/// Whether bfloat16 products run on bfloat16 instructions here, and whether
/// these are faster than float32's.
bool has_bfloat16();
bool bfloat16_pays();

/// With `narrow`, of bfloat16 products on instructions of their own.
std::string_view target_name(bool narrow);

/// The library's, such as "2.6.0".
std::string version();

}  // namespace pennyweight::kernels::onednn
