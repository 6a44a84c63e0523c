#pragma once

#include <optional>

#include "model/decoder.h"

/// What the parts of a block share.
namespace pennyweight {

/// What the norm multiplies by.
mx::array norm_weight(const NormSpec& norm, const mx::array& stored);

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

/// x normed, or as it is where there is no norm, in `dtype`.
mx::array before(
    const std::optional<NormSpec>& norm,
    const BlockWeights& weights,
    const mx::array& x,
    mx::Dtype dtype);

/// residual + r norm(part), all float32.
mx::array add_part(
    const BlockSpec& spec,
    const std::optional<NormSpec>& norm,
    const BlockWeights& weights,
    const mx::array& residual,
    mx::array part);

/// The residual stream x as mlx-lm holds it in float16, where the range of
/// activations is watched; x itself elsewhere.
mx::array held_residual(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const std::string& where,
    const mx::array& x);

/// Grows the buffer by whole steps and writes `fresh` behind what is there;
/// gives all so far.
mx::array
append(std::optional<mx::array>& buffer, const mx::array& fresh, int length);

/// [batch, length, heads * size] to [batch, length, heads, size].
mx::array split_heads(const mx::array& x, int heads, int head_dim);

/// All positions up to the new ones [batch, length, hidden] of `input`, for
/// mixers that keep no state: in generation they go through all of them again
/// with each token, since only samples of a model's own text are made so.
mx::array whole_input(const mx::array& input, const ForwardContext& context);
/// x's last `length` positions [batch, length, channels].
mx::array newest(const mx::array& x, int length);

/// x [batch, length, channels] under a short convolution of each channel, whose
/// weight is `conv` [channels, width, 1].
mx::array convolved(
    const ParameterSpec& conv,
    const std::optional<ParameterSpec>& bias,
    const BlockWeights& weights,
    const mx::array& x,
    bool silu);

/// attention_mixed() of linear attention, and of what stands in its place.
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

/// x [..., first .. end - 1].
mx::array last_axis(const mx::array& x, int first, int end);

}  // namespace pennyweight
