#pragma once

#include "kernels/backward.h"
#include "kernels/distill.h"
#include "kernels/kernels.h"

/// Naive kernels, which sum in float64: the oracle of the tests.
namespace pennyweight::kernels::reference {

void matmul(const MatmulArgs& args);
void dequantize(const DequantizeArgs& args);
void quantized_matmul(const QuantizedMatmulArgs& args);
void rms_norm(const RmsNormArgs& args);
void rope(const RopeArgs& args);
void attention(const AttentionArgs& args);
void gated_delta(const GatedDeltaArgs& args);
void causal_conv(const CausalConvArgs& args);
void swiglu(const SwigluArgs& args);
void subtract(const SubtractArgs& args);
void add_magnitudes(const AddMagnitudesArgs& args);
void transpose(const TransposeArgs& args);
void gram(const GramArgs& args);
void softmax(const SoftmaxArgs& args);
void logsumexp(const LogSumExpArgs& args);
void score_update(const ScoreArgs& args);
void rms_norm_backward(const RmsNormBackwardArgs& args);
void swiglu_backward(const SwigluBackwardArgs& args);
void attention_backward(const AttentionBackwardArgs& args);
void gated_delta_backward(const GatedDeltaBackwardArgs& args);
void kl_slopes(const KlSlopesArgs& args);
void group_gradient(const GroupGradientArgs& args);
void accumulate(const AccumulateArgs& args);

}  // namespace pennyweight::kernels::reference
