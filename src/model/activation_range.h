#pragma once

#include <string>
#include <utility>
#include <vector>

#include "model/spec/decoder_spec.h"
#include "ops/ops.h"

namespace pennyweight {

struct BlockWeights;

/// mlx-lm runs a model of float16 weights in float16: activations between
/// modules are held in it, while sums within a product, a norm or a softmax are
/// float32. A value of kFloat16Overflow or more rounds past kLargestFloat16: it
/// is infinite there, and NaN soon after.
inline constexpr float kLargestFloat16 = 65504;
inline constexpr float kFloat16Overflow = 65520;

/// What was found at one place of a forward pass.
struct ActivationPeak {
  std::string place;  // "the output of model.layers.0.mlp.down_proj"
  /// The largest magnitude; infinite or NaN where the activations that were
  /// looked at had overflowed already.
  float largest = 0;

  bool overflows() const {
    return !(largest < kFloat16Overflow);
  }
};

/// Notes the largest magnitudes of activations that mlx-lm would hold in a
/// model's own type, while a block runs.
class ActivationRange {
 public:
  /// Notes the largest magnitude of x, of any float type and shape, lazily.
  void see(const std::string& place, const mx::array& x);
  /// Gives what was seen since the last call, in the order of the forward
  /// pass. Evaluates it together with `result`, the output of that pass.
  std::vector<ActivationPeak> take(const mx::array& result);

 private:
  std::vector<std::pair<std::string, mx::array>> seen_;
};

/// Has `range` see the activations of the block's forward passes from now on,
/// except where an infinity does no harm: before a sigmoid, a tanh or a clip.
/// `range` must outlive the passes.
void watch_range(
    const BlockSpec& spec,
    BlockWeights& weights,
    ActivationRange& range);

/// Has the range of `weights` see the largest attention score that the mask
/// leaves, of q [batch, length, heads, size] and k [batch, keys, kv_heads,
/// size], where a bound says that it may overflow. MLX holds scores in the type
/// of q unless one fused kernel does all of the attention. Evaluates q and k.
void see_scores(
    const AttentionSpec& attention,
    const BlockWeights& weights,
    const mx::array& q,
    const mx::array& k);

}  // namespace pennyweight
