#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/kernels.h"

namespace pennyweight::kernels::reference {

/// One value of a gated activation, gate * sigmoid(z) * up, where gate and up
/// are clipped already and z depends on gate. Those without a sigmoid have a
/// step in its place, or 1.
struct Gated {
  GateKind kind;
  double gate, up;
  double z, dz = 1;        // and its derivative by gate
  bool gate_moves = true;  // not clipped
  bool up_moves = true;

  Gated(GateKind own, double g, double u) : kind(own), gate(g), up(u), z(g) {
    const double a = double(kGeluLinear);
    const double c = double(kGeluCubic);
    const double limit = double(kClippedAt);
    switch (kind) {
      case GateKind::silu:
      case GateKind::relu:
      case GateKind::none:
        break;
      case GateKind::gelu:
        z = a * (g + c * g * g * g);
        dz = a * (1 + 3 * c * g * g);
        break;
      case GateKind::clipped:
        gate_moves = g <= limit;
        up_moves = std::abs(u) <= limit;
        gate = std::min(g, limit);
        up = std::clamp(u, -limit, limit) + 1;
        dz = double(kClippedSlope);
        z = dz * gate;
    }
  }
  double sigmoid() const {
    if (kind == GateKind::relu || kind == GateKind::none) {
      return kind == GateKind::none || gate > 0 ? 1 : 0;
    }
    return 1 / (1 + std::exp(-z));
  }
  double value() const {
    return gate * sigmoid() * up;
  }
};

}  // namespace pennyweight::kernels::reference
