#include <cmath>

#include "kernels/access.h"
#include "kernels/reference/gated.h"
#include "kernels/reference/reference.h"

namespace pennyweight::kernels::reference {

void rms_norm_backward(const RmsNormBackwardArgs& args) {
  for (int64_t row = 0; row < args.rows; ++row) {
    double square = 0;
    double along = 0;
    const int64_t first = row % args.weights * args.columns;
    const auto scaled = [&](int64_t j) {
      return double(load_at(args.dy, row, j)) *
          load_at(args.weight.data, args.weight.type, first + j);
    };
    for (int64_t j = 0; j < args.columns; ++j) {
      const double x = load_at(args.x, row, j);
      square += x * x;
      along += x * scaled(j);
    }
    const double n = double(args.columns);
    const double r = 1 / std::sqrt(square / n + double(args.eps));
    for (int64_t j = 0; j < args.columns; ++j) {
      const double x = load_at(args.x, row, j);
      const double dx = r * (scaled(j) - x * r * r * along / n);
      store_at(args.dx, row, j, float(dx));
    }
  }
}

void gated_activation_backward(const GatedActivationBackwardArgs& args) {
  for (int64_t row = 0; row < args.rows; ++row) {
    for (int64_t j = 0; j < args.columns; ++j) {
      const Gated gated(
          args.kind, load_at(args.gate, row, j), load_at(args.up, row, j));
      const double dy = load_at(args.dy, row, j);
      const double x = gated.gate;
      const double s = gated.sigmoid();
      const double by_gate = dy * gated.up * (s + x * s * (1 - s) * gated.dz);
      store_at(args.dup, row, j, gated.up_moves ? float(dy * x * s) : 0.0f);
      store_at(args.dgate, row, j, gated.gate_moves ? float(by_gate) : 0.0f);
    }
  }
}

}  // namespace pennyweight::kernels::reference
