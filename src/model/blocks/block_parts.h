#pragma once

#include <optional>

#include "model/decoder.h"

/// What the parts of a block share.
namespace pennyweight {

/// What a norm multiplies by: its stored weight [size], plus NormSpec::offset
/// in float32 where there is one.
mx::array norm_weight(const NormSpec& norm, const mx::array& stored);

/// x [..., size] normed, in `dtype`: by the stored weight and bias that are
/// given, or by those that `weights` has under the norm's path.
mx::array normed(
    const NormSpec& norm,
    const mx::array& stored,
    const std::optional<mx::array>& bias,
    const mx::array& x,
    mx::Dtype dtype);
mx::array normed(
    const NormSpec& norm,
    const BlockWeights& weights,
    const mx::array& x,
    mx::Dtype dtype);

/// What the linears behind a norm read: x normed, or x itself where there is no
/// norm, in `dtype`.
mx::array before(
    const std::optional<NormSpec>& norm,
    const BlockWeights& weights,
    const mx::array& x,
    mx::Dtype dtype);

/// residual + r * norm(part), all float32; r is BlockSpec::residual_scale.
mx::array add_part(
    const BlockSpec& spec,
    const std::optional<NormSpec>& norm,
    const BlockWeights& weights,
    const mx::array& residual,
    mx::array part);

/// The residual stream x, which is x itself unless the range of activations is
/// watched: then it is noted as the stream after `where`, and clipped as mlx-lm
/// clips it in float16 (BlockSpec::clips_residual).
mx::array held_residual(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const std::string& where,
    const mx::array& x);

/// Writes `fresh` [batch, n, heads, size] behind the first `length` positions
/// of the buffer, which grows by whole steps, and gives all length + n
/// positions.
mx::array
append(std::optional<mx::array>& buffer, const mx::array& fresh, int length);

/// [batch, length, heads * size] to [batch, length, heads, size].
mx::array split_heads(const mx::array& x, int heads, int head_dim);

/// All positions up to the new ones [batch, length, hidden] of `input`, for
/// mixers that keep no state: in generation they go through all of them again
/// with each token, since only samples of a model's own text are made so.
mx::array whole_input(const mx::array& input, const ForwardContext& context);
/// The last `length` positions of x, [batch, length, channels].
mx::array newest(const mx::array& x, int length);

/// x [batch, length, channels] under a short convolution of each channel, whose
/// weight is `conv` [channels, width, 1].
mx::array convolved(
    const ParameterSpec& conv,
    const std::optional<ParameterSpec>& bias,
    const BlockWeights& weights,
    const mx::array& x,
    bool silu);

/// What attention_mixed() gives where a block has linear attention, a scan or a
/// short convolution in place of attention.
mx::array delta_mixed(
    const DeltaSpec& spec,
    const BlockWeights& weights,
    const mx::array& input,
    const ForwardContext& context);
mx::array scan_mixed(
    const ScanSpec& spec,
    const BlockWeights& weights,
    const mx::array& input,
    const ForwardContext& context);
mx::array short_conv_mixed(
    const ShortConvSpec& spec,
    const BlockWeights& weights,
    const mx::array& input,
    const ForwardContext& context);

/// Entries first .. end - 1 of x along its last axis.
mx::array last_axis(const mx::array& x, int first, int end);

}  // namespace pennyweight
