#pragma once

#include "ops/expert_linear.h"
#include "ops/expert_rows.h"
#include "ops/kl_head.h"
#include "ops/ops.h"

/// The functions of ops.h made of MLX's own ops: what runs on a GPU, and what
/// the tests compare the CPU primitives with. Arguments are already checked.
namespace pennyweight::ops::mlx_path {

mx::array linear(
    const mx::array& x,
    const mx::array& weight,
    const std::optional<mx::array>& bias,
    mx::Dtype out_dtype);

mx::array dequantize(const QuantizedWeight& weight, mx::Dtype dtype);

GroupGradients group_gradients(
    const QuantizedWeight& weight,
    const mx::array& dw);

mx::array quantized_linear(
    const mx::array& x,
    const QuantizedWeight& weight,
    const std::optional<mx::array>& bias,
    mx::Dtype out_dtype);

mx::array expert_linear(
    const mx::array& x,
    const std::vector<ExpertWeight>& experts,
    const mx::array& expert,
    mx::Dtype out_dtype);

mx::array rows_of_slots(const mx::array& x, const RowOrder& order);
mx::array
mix_slots(const mx::array& y, const RowOrder& order, const mx::array& scores);

mx::array rms_norm(
    const mx::array& x,
    const mx::array& weight,
    float eps,
    mx::Dtype out_dtype);

mx::array rope(const mx::array& x, const RopeTable& table, int offset);

mx::array attention(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionOptions& options);

mx::array gated_delta(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const mx::array& g,
    const mx::array& beta);

mx::array causal_conv(const mx::array& x, const mx::array& weight, bool silu);

mx::array swiglu(const mx::array& gate, const mx::array& up);
mx::array geglu(const mx::array& gate, const mx::array& up);
mx::array clipped_glu(const mx::array& gate, const mx::array& up);
mx::array softmax(const mx::array& x);
mx::array logsumexp(const mx::array& x);

/// Capped, not scaled.
mx::array head_logits(const HeadRows& head);

mx::array kl_gradient(
    const mx::array& state,
    const HeadRows& head,
    const HeadRows& reference,
    const KlOptions& options);

mx::array score_update(
    const mx::array& state,
    const mx::array& logits,
    const std::optional<mx::array>& reference,
    const mx::array& targets,
    int first);
Scores score_finish(const mx::array& state);

}  // namespace pennyweight::ops::mlx_path
