#include <mlx/ops.h>

#include <cmath>

#include "model/blocks/block_parts.h"
#include "ops/gated_delta.h"

namespace pennyweight {

namespace {

// The scan's step at each token, float32 [batch, length, heads]:
// softplus(dt + dt_bias), clipped to the spec's bounds.
mx::array steps_of(
    const ScanSpec& spec,
    const BlockWeights& weights,
    const mx::array& dt) {
  const auto wide = [](const mx::array& x) {
    return mx::astype(x, mx::float32);
  };
  const auto bias = wide(weights.parameters.at(spec.dt_bias.name));
  const auto steps = mx::logaddexp(mx::add(wide(dt), bias), mx::array(0.0f));
  const auto at_least = mx::maximum(steps, mx::array(spec.dt_least));
  return std::isfinite(spec.dt_most)
      ? mx::minimum(at_least, mx::array(spec.dt_most))
      : at_least;
}

mx::array norm_groups(
    const ScanSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    mx::Dtype dtype) {
  const NormSpec& norm = *spec.norm;
  if (spec.norm_groups == 1) {
    return normed(norm, weights, x, dtype);
  }
  const int size = x.shape(-1) / spec.norm_groups;
  const auto y = mx::flatten(
      ops::rms_norm(
          split_heads(x, spec.norm_groups, size),
          mx::reshape(weights.norms.at(norm.path), {spec.norm_groups, size}),
          norm.eps,
          dtype),
      2,
      3);
  weights.see("the output of " + norm.path, y);
  return y;
}

// The scan's result [batch, length, heads * head_dim].
mx::array scanned_of(
    const ScanSpec& spec,
    const BlockWeights& weights,
    const mx::array& mixed,
    const mx::array& dt) {
  const int inner = spec.heads * spec.head_dim;
  const int states = spec.groups * spec.state;
  const auto by_group = [&](int first) {
    return split_heads(
        last_axis(mixed, first, first + states), spec.groups, spec.state);
  };
  const auto parameter = [&](const ParameterSpec& own) {
    return mx::astype(weights.parameters.at(own.name), mx::float32);
  };
  const auto steps = steps_of(spec, weights, dt);
  const auto y = ops::ssd_scan(
      by_group(inner + states),
      by_group(inner),
      split_heads(last_axis(mixed, 0, inner), spec.heads, spec.head_dim),
      mx::multiply(mx::negative(mx::exp(parameter(spec.a_log))), steps),
      steps,
      parameter(spec.skip));
  return mx::flatten(y, 2, 3);
}

}  // namespace

mx::array scan_mixed(
    const ScanSpec& spec,
    const BlockWeights& weights,
    const mx::array& input,
    const ForwardContext& context) {
  const auto all =
      weights.linears.at(spec.in.path)(whole_input(input, context));
  const int inner = spec.heads * spec.head_dim;
  const int end = all.shape(-1) - spec.heads;
  const auto mixed = convolved(
      spec.conv, spec.conv_bias, weights, last_axis(all, inner, end), true);
  weights.see("the output of " + module_of(spec.conv.name), mixed);
  auto y =
      scanned_of(spec, weights, mixed, last_axis(all, end, end + spec.heads));
  const auto place = module_of(spec.in.path);
  weights.see("what the scan of " + place + " gives", y);
  const auto gate = last_axis(all, 0, inner);
  if (spec.norm && spec.norm_first) {
    y = norm_groups(spec, weights, y, context.dtype);
  }
  y = ops::swiglu(gate, y);
  weights.see("the gated scan of " + place, y);
  if (spec.norm && !spec.norm_first) {
    y = norm_groups(spec, weights, y, context.dtype);
  }
  return newest(y, input.shape(1));
}

std::optional<mx::array> side_scanned(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& input,
    const ForwardContext& context) {
  if (!spec.side_scan) {
    return std::nullopt;
  }
  return scan_mixed(spec.side_scan->scan, weights, input, context);
}

}  // namespace pennyweight
