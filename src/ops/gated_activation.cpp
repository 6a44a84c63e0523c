#include <mlx/ops.h>

#include <cmath>

#include "kernels/access.h"
#include "ops/check.h"
#include "ops/primitive.h"

namespace pennyweight::ops {

namespace {

using kernels::GateKind;

/// activation(gate) * up; see GateKind.
mx::array by_mlx(const Arrays& in, GateKind kind) {
  auto gate = as_float32(in[0]);
  auto up = as_float32(in[1]);
  if (kind == GateKind::relu || kind == GateKind::none) {
    if (kind == GateKind::relu) {
      gate = mx::maximum(gate, mx::array(0.0f));
    }
    return mx::astype(mx::multiply(gate, up), in[0].dtype());
  }
  auto z = gate;
  if (kind == GateKind::gelu) {
    const auto cube = mx::array(kernels::kGeluCubic) * (gate * (gate * gate));
    z = mx::array(kernels::kGeluLinear) * (gate + cube);
  } else if (kind == GateKind::clipped) {
    const mx::array limit(kernels::kClippedAt);
    gate = mx::minimum(gate, limit);
    up = mx::clip(up, mx::negative(limit), limit) + mx::array(1.0f);
    z = gate * mx::array(kernels::kClippedSlope);
  }
  const auto product = gate * mx::sigmoid(z) * up;
  return mx::astype(product, in[0].dtype());
}

/// [2, ...]: the gradients by gate, then those by up.
mx::array backward(
    const mx::array& gate,
    const mx::array& up,
    const mx::array& dy,
    GateKind kind) {
  auto shape = gate.shape();
  shape.insert(shape.begin(), 2);
  return make({
      .name = "gated_activation_backward",
      .shape = shape,
      .dtype = gate.dtype(),
      .inputs = {gate, up, dy},
      .cpu = [kind](CpuWork& work) -> Task {
        const auto dgate = work.result();
        auto dup = dgate;
        dup.data =
            kernels::advance(dgate.data, dgate.type, work.out_size() / 2);
        const kernels::GatedActivationBackwardArgs args{
            .rows = work.rows(0),
            .columns = work.columns(0),
            .gate = work.matrix(0),
            .up = work.matrix(1),
            .dy = work.matrix(2),
            .dgate = dgate,
            .dup = dup,
            .kind = kind};
        return [args] { kernels::gated_activation_backward(args); };
      },
  });
}

mx::array gated(GateKind kind, const mx::array& gate, const mx::array& up) {
  require_floating(gate, "swiglu", "gate");
  require(
      gate.shape() == up.shape() && gate.dtype() == up.dtype(),
      "swiglu",
      "gate " + describe(gate) + " and up " + describe(up) + " differ");
  return make({
      .name = "gated_activation",
      .shape = gate.shape(),
      .dtype = gate.dtype(),
      .inputs = {gate, up},
      .fallback = [kind](const Arrays& in) { return by_mlx(in, kind); },
      .cpu = [kind](CpuWork& work) -> Task {
        const kernels::GatedActivationArgs args{
            .rows = work.rows(0),
            .columns = work.columns(0),
            .gate = work.matrix(0),
            .up = work.matrix(1),
            .out = work.result_over({0, 1}),
            .kind = kind};
        return [args] { kernels::gated_activation(args); };
      },
      .vjp = [kind](const Arrays& in, const mx::array& dy) -> GradientOf {
        const auto both = backward(in[0], in[1], dy, kind);
        return [=](size_t i) { return part_of(both, int(i)); };
      },
  });
}

}  // namespace

mx::array swiglu(const mx::array& gate, const mx::array& up) {
  return gated(GateKind::silu, gate, up);
}

mx::array geglu(const mx::array& gate, const mx::array& up) {
  return gated(GateKind::gelu, gate, up);
}

mx::array clipped_glu(const mx::array& gate, const mx::array& up) {
  return gated(GateKind::clipped, gate, up);
}

mx::array relu2(const mx::array& x) {
  return gated(GateKind::relu, x, x);
}

mx::array product(const mx::array& a, const mx::array& b) {
  return gated(GateKind::none, a, b);
}

namespace {

mx::array wide_gelu_erf(const mx::array& x) {
  const mx::array half(0.5f);
  const auto at = mx::multiply(x, mx::array(float(M_SQRT1_2)));
  return mx::multiply(
      mx::multiply(x, half), mx::add(mx::erf(at), mx::array(1.0f)));
}

}  // namespace

mx::array gelu_erf_glu(const mx::array& gate, const mx::array& up) {
  const auto wide = wide_gelu_erf(as_float32(gate));
  return mx::astype(mx::multiply(wide, as_float32(up)), gate.dtype());
}

mx::array gelu_erf(const mx::array& x) {
  return mx::astype(wide_gelu_erf(as_float32(x)), x.dtype());
}

mx::array gelu(const mx::array& x) {
  return gated(GateKind::gelu, x, mx::ones_like(x));
}

mx::array xielu(
    const mx::array& x,
    const mx::array& alpha_p,
    const mx::array& alpha_n,
    const mx::array& beta,
    const mx::array& eps) {
  const auto softplus = [](const mx::array& a) {
    return mx::logaddexp(a, mx::array(0.0f));
  };
  const auto wide = as_float32(x);
  const auto above = mx::multiply(softplus(alpha_p), mx::square(wide));
  const auto bent = mx::subtract(mx::expm1(mx::minimum(wide, eps)), wide);
  const auto below = mx::multiply(bent, mx::add(beta, softplus(alpha_n)));
  const auto curve =
      mx::where(mx::greater(wide, mx::array(0.0f)), above, below);
  return mx::astype(mx::add(curve, mx::multiply(beta, wide)), x.dtype());
}

}  // namespace pennyweight::ops
