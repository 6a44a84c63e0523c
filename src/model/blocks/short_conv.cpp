#include <mlx/ops.h>

#include "model/blocks/block_parts.h"
#include "ops/gated_delta.h"

namespace pennyweight {

mx::array convolved(
    const ParameterSpec& conv,
    const std::optional<ParameterSpec>& bias,
    const BlockWeights& weights,
    const mx::array& x,
    bool silu) {
  const auto own = [&](const ParameterSpec& parameter) {
    return mx::astype(weights.parameters.at(parameter.name), x.dtype());
  };
  return ops::causal_conv(
      x,
      mx::squeeze(own(conv), -1),
      silu,
      bias ? std::optional(own(*bias)) : std::nullopt);
}

mx::array short_conv_mixed(
    const ShortConvSpec& spec,
    const BlockWeights& weights,
    const mx::array& input,
    const ForwardContext& context) {
  const auto all =
      weights.linears.at(spec.in.path)(whole_input(input, context));
  const int channels = all.shape(-1) / 3;
  const auto part = [&](int index) {
    return last_axis(all, index * channels, (index + 1) * channels);
  };
  const auto gated = ops::product(part(0), part(2));
  const auto place = module_of(spec.conv.name);
  weights.see("the input of " + place, gated);
  const auto sums = convolved(spec.conv, spec.conv_bias, weights, gated, false);
  weights.see("the output of " + place, sums);
  const auto mixed = ops::product(part(1), sums);
  weights.see("the gated output of " + place, mixed);
  return newest(mixed, input.shape(1));
}

}  // namespace pennyweight
