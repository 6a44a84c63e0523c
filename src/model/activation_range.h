#pragma once

#include <string>
#include <utility>
#include <vector>

#include "model/spec/decoder_spec.h"
#include "ops/ops.h"

namespace pennyweight {

struct BlockWeights;

/// mlx-lm runs a model of float16 weights in float16: what modules give each
/// other is held so, while sums within a product, a norm or a softmax are
/// float32. A value that rounds past the largest float16 is infinite there,
/// and NaN soon after.
inline constexpr float kLargestFloat16 = 65504;
inline constexpr float kFloat16Overflow = 65520;

/// The largest magnitude at one place of a forward pass ("the output of
/// model.layers.0.mlp.down_proj").
struct ActivationPeak {
  std::string place;
  float largest = 0;  // infinite or NaN where x was held in float16 itself

  bool overflows() const {
    return !(largest < kFloat16Overflow);
  }
};

/// Notes the largest magnitudes of activations that mlx-lm would hold in a
/// model's own type, while a block runs.
class ActivationRange {
 public:
  void see(const std::string& place, const mx::array& x);
  /// What was seen since the last call, in the order of the forward pass;
  /// evaluates it together with `result`, what the pass has made.
  std::vector<ActivationPeak> take(const mx::array& result);

 private:
  std::vector<std::pair<std::string, mx::array>> seen_;
};

/// From now on `range` sees what the block's forward passes make, but where an
/// infinity does no harm: before a sigmoid, a tanh or a clip. It must outlive
/// the passes.
void watch_range(
    const BlockSpec& spec,
    BlockWeights& weights,
    ActivationRange& range);

/// The largest score of the attention of q [batch, length, heads, size] to k
/// [batch, keys, kv_heads, size] that its mask leaves, where it may overflow:
/// MLX holds scores in the type of q unless one fused kernel makes them and
/// what becomes of them. Evaluates q and k.
void see_scores(
    const AttentionSpec& attention,
    const BlockWeights& weights,
    const mx::array& q,
    const mx::array& k);

}  // namespace pennyweight
