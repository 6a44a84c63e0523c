#include <mlx/ops.h>

#include "model/blocks/mlp_parts.h"

namespace pennyweight {

namespace {

// The activation of an MLP without a gate, in x's type.
mx::array
curved(const MlpSpec& spec, const BlockWeights& weights, const mx::array& x) {
  const auto parameter = [&](const ParameterSpec& own) {
    return weights.parameters.at(own.name);
  };
  switch (spec.activation) {
    case Activation::relu2:
      return ops::relu2(x);
    case Activation::gelu_erf:
      return ops::gelu_erf(x);
    case Activation::xielu:
      return ops::xielu(
          x,
          parameter(spec.xielu->alpha_p),
          parameter(spec.xielu->alpha_n),
          parameter(spec.xielu->beta),
          parameter(spec.xielu->eps));
    default:
      return ops::gelu(x);
  }
}

}  // namespace

mx::array
activated(Activation activation, const mx::array& gate, const mx::array& up) {
  switch (activation) {
    case Activation::gelu:
      return ops::geglu(gate, up);
    case Activation::gelu_erf:
      return ops::gelu_erf_glu(gate, up);
    case Activation::clipped:
      return ops::clipped_glu(gate, up);
    default:
      return ops::swiglu(gate, up);
  }
}

mx::array mlp_input(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& x,
    const ForwardContext& context) {
  return before(spec.mlp_norm, weights, x, context.dtype);
}

mx::array mlp_wide(
    const MlpSpec& spec,
    const BlockWeights& weights,
    const mx::array& input) {
  const auto seen = [&](const mx::array& wide) {
    weights.see("the input of " + spec.down.path, wide);
    return wide;
  };
  const auto wide = [&](const mx::array& gate, const mx::array& up) {
    return seen(activated(spec.activation, gate, up));
  };
  if (spec.gate_up) {
    auto both = weights.linears.at(spec.gate_up->path)(input);
    const int half = both.shape(-1) / 2;
    return wide(last_axis(both, 0, half), last_axis(both, half, 2 * half));
  }
  if (!spec.gated) {
    return seen(curved(spec, weights, weights.linears.at(spec.up.path)(input)));
  }
  // The gate runs first, so that a range sees both in a fixed order.
  const auto gate = weights.linears.at(spec.gate.path)(input);
  return wide(gate, weights.linears.at(spec.up.path)(input));
}

mx::array mlp_output(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& residual,
    const std::optional<mx::array>& wide,
    const ForwardContext& context) {
  if (!spec.moe) {
    const auto& down = weights.linears.at(spec.mlp->down.path);
    const auto x = !spec.mlp_post && spec.residual_scale == 1
        ? down.add_to(residual, *wide)
        : add_part(
              spec, spec.mlp_post, weights, residual, down(*wide, mx::float32));
    return held_residual(spec, weights, spec.mlp->down.path, x);
  }
  const MoeSpec& moe = *spec.moe;
  const auto rows = [](const mx::array& x) { return mx::flatten(x, 0, 1); };
  const auto input = experts_input(spec, weights, residual, context);
  const auto read = rows(router_input(spec, weights, residual, context));
  auto part = moe.latent_out
      ? weights.linears.at(moe.latent_out->path)(
            expert_sum(moe, weights, rows(input)), mx::float32)
      : mix_experts(moe, weights, rows(input), route(moe, weights, read));
  part = mx::reshape(part, residual.shape());
  if (moe.post) {
    part = normed(*moe.post, weights, part, mx::float32);
  }
  if (spec.mlp) {
    auto shared = weights.linears.at(spec.mlp->down.path)(*wide, mx::float32);
    if (const auto& gate = moe.shared_gate) {
      shared = mx::multiply(
          shared,
          mx::sigmoid(weights.linears.at(gate->path)(input, mx::float32)));
    }
    if (moe.mlp_post) {
      shared = normed(*moe.mlp_post, weights, shared, mx::float32);
    }
    part = mx::add(part, shared);
  }
  weights.see("the sum over the experts of " + spec.path, part);
  return held_residual(
      spec,
      weights,
      "the experts of " + spec.path,
      add_part(spec, spec.mlp_post, weights, residual, part));
}

mx::array token_wide(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& residual,
    const mx::array& input,
    const ForwardContext& context) {
  const auto& linear = weights.linears.at(spec.token_gate->gate.path);
  // Copied to a dense array: a product of strided rows may be served by another
  // kernel, so that its bits would depend on the columns beside the stream.
  const auto dense = [&](const mx::array& x) {
    return mx::contiguous(mx::astype(x, context.dtype));
  };
  return ops::geglu(linear(dense(residual)), dense(input));
}

mx::array block_end(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& residual,
    const std::optional<mx::array>& wide) {
  auto x = residual;
  if (const auto& token = spec.token_gate) {
    x = add_part(
        spec,
        token->post,
        weights,
        x,
        weights.linears.at(token->out.path)(*wide, mx::float32));
  }
  if (spec.scalar) {
    x = mx::multiply(x, weights.parameters.at(spec.scalar->name));
  }
  const bool changed = spec.token_gate || spec.scalar;
  return changed ? held_residual(spec, weights, spec.path, x) : x;
}

mx::array parallel_output(
    const BlockSpec& spec,
    const BlockWeights& weights,
    const mx::array& residual,
    const mx::array& mixed,
    const mx::array& wide) {
  auto x = attention_output(spec, weights, residual, mixed);
  return mlp_output(spec, weights, x, wide, {});
}

}  // namespace pennyweight
