#pragma once

#include <vector>

#include "core/progress.h"
#include "model/activation_range.h"
#include "model/model.h"
#include "model/weights.h"

namespace pennyweight {

/// Whether mlx-lm holds the model's activations in float16: where embedding,
/// linears and norms are all of it. One that is float32 makes what is behind
/// it float32.
bool runs_in_float16(const Model& model);

/// Watches a model that is evaluated in float16 for activations that mlx-lm
/// could not hold. Each function gives a numeric Error that names the first
/// place: mlx-lm's logits are not finite from there on.
class OverflowGuard {
 public:
  explicit OverflowGuard(const Model& model) : model_(model) {}

  void embedded(const mx::array& x);
  /// Has the block's passes watched.
  void enter(const BlockSpec& block, BlockWeights& weights);
  /// Evaluates `after`, which the block has made of `before`.
  void leave(
      const BlockSpec& block,
      const mx::array& before,
      const mx::array& after);
  /// What the head reads: a final norm's result [rows, hidden].
  void normed(const mx::array& x);
  /// Logits that rows x [rows, hidden] give by a tile of the head.
  void logits(const mx::array& x, const LinearWeights& tile);

 private:
  const Model& model_;
  ActivationRange range_;
};

/// What a model whose weights are not float16 would have to hold if they were.
struct Float16Peaks {
  /// Of each block its largest activation, the embedding first and the head
  /// last.
  std::vector<ActivationPeak> parts;
  /// The places that overflow, in the order of the forward pass.
  std::vector<ActivationPeak> overflows;
};

/// Runs the model, in its own type, over one sequence: block by block, in the
/// memory of one.
Float16Peaks float16_peaks(
    const Model& model,
    const std::vector<int32_t>& tokens,
    const ProgressFn& progress = {});

}  // namespace pennyweight
