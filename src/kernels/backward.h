#pragma once

#include "kernels/kernels.h"

/// Backward passes of the kernels in kernels.h, under the same rules: given
/// the gradient of a loss by a kernel's result, the gradients by its inputs.
/// Sums are float32.
namespace pennyweight::kernels {

/// For y = x r w with r = 1 / sqrt(mean(x^2) + eps), by row:
///   dx = r (w dy - x r^2 mean(w dy x)).
struct RmsNormBackwardArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  float eps = 0;
  ConstMatrix x{};
  ConstVector weight{};
  ConstMatrix dy{};
  Matrix dx{};
  int64_t weights = 1;  // see RmsNormArgs
};

/// For y = the gated activation `kind` of gate and up. Where the activation
/// clips a value, its gradient is 0.
struct GatedActivationBackwardArgs {
  int64_t rows = 0;
  int64_t columns = 0;
  ConstMatrix gate{};
  ConstMatrix up{};
  ConstMatrix dy{};
  Matrix dgate{};
  Matrix dup{};
  GateKind kind = GateKind::silu;
};

/// For out = softmax(scale * q k^T + mask) v of `forward`, whose own out is
/// neither read nor written: the probabilities p are computed again, a tile of
/// queries at a time.
///   dv = p^T dout,  ds = p (dout v^T - sum(p dout v^T)),
///   dq = scale ds k,  dk = scale ds^T q.
/// Where there is a cap, ds is then multiplied by the cap's derivative.
struct AttentionBackwardArgs {
  AttentionArgs forward{};
  HeadsView dout{};    // [batch, length, heads, head_dim], in forward.type
  void* dq = nullptr;  // as q; all contiguous, in forward.type
  void* dk = nullptr;  // as k
  void* dv = nullptr;  // as v
};

/// For out of `forward`, which is neither read nor written: of the delta rule
/// by gated_delta_backward, of the sum rule by ssd_scan_backward. A first pass
/// keeps the state [value_dim, key_dim] before each 32 tokens; the states
/// between are made again from these. Each thread has the memory of one head.
struct GatedDeltaBackwardArgs {
  GatedDeltaArgs forward{};
  const void* dy = nullptr;  // as out
  /// [batch, length, n]: the gradients of a token stand one after the other,
  /// those by q and k [key_heads, key_dim] each, by v [heads, value_dim], by g
  /// and beta [heads] each.
  float* out = nullptr;
};

}  // namespace pennyweight::kernels
