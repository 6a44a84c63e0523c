#pragma once

#include "ops/ops.h"

/// The functions of ops.h as primitives over kernels/, for a CPU's stream.
/// Arguments are already checked.
namespace pennyweight::ops::cpu_path {

mx::array linear(
    const mx::array& x,
    const mx::array& weight,
    const std::optional<mx::array>& bias,
    const std::optional<mx::array>& residual,
    mx::Dtype out_dtype,
    mx::Stream stream);

mx::array
dequantize(const QuantizedWeight& weight, mx::Dtype dtype, mx::Stream stream);

mx::array quantized_linear(
    const mx::array& x,
    const QuantizedWeight& weight,
    const std::optional<mx::array>& bias,
    const std::optional<mx::array>& residual,
    mx::Dtype out_dtype,
    mx::Stream stream);

/// dy [..., out] times weight [out, in], in dy's type: the gradient by x of
/// linear(x, weight).
mx::array linear_transposed(
    const mx::array& dy,
    const mx::array& weight,
    mx::Stream stream);
/// And by the weight, float32 [out, in]: dy [..., out] transposed times x.
mx::array
weight_gradient(const mx::array& dy, const mx::array& x, mx::Stream stream);

GroupGradients group_gradients(
    const QuantizedWeight& weight,
    const mx::array& dw,
    mx::Stream stream);

mx::array
accumulate(const mx::array& sum, const mx::array& x, mx::Stream stream);

mx::array gram_add(
    const mx::array& sum,
    const std::vector<mx::array>& parts,
    const mx::array& b,
    mx::Stream stream);

mx::array
magnitudes_add(const mx::array& sum, const mx::array& x, mx::Stream stream);

mx::array difference(
    const mx::array& a,
    const mx::array& b,
    mx::Dtype dtype,
    mx::Stream stream);

mx::array rms_norm(
    const mx::array& x,
    const mx::array& weight,
    float eps,
    mx::Dtype out_dtype,
    mx::Stream stream);

mx::array
rope(const mx::array& x, const RopeTable& table, int offset, mx::Stream stream);

mx::array attention(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionOptions& options,
    mx::Stream stream);

mx::array swiglu(const mx::array& gate, const mx::array& up, mx::Stream stream);
mx::array geglu(const mx::array& gate, const mx::array& up, mx::Stream stream);
mx::array
clipped_glu(const mx::array& gate, const mx::array& up, mx::Stream stream);
mx::array softmax(const mx::array& x, mx::Stream stream);
mx::array logsumexp(const mx::array& x, mx::Stream stream);

mx::array score_update(
    const mx::array& state,
    const mx::array& logits,
    const std::optional<mx::array>& reference,
    const mx::array& targets,
    int first,
    mx::Stream stream);
mx::array score_linear(
    const mx::array& state,
    const HeadRows& head,
    const std::optional<HeadRows>& reference,
    const mx::array& targets,
    int first,
    float scale,
    mx::Stream stream);
Scores score_finish(const mx::array& state, mx::Stream stream);

}  // namespace pennyweight::ops::cpu_path
