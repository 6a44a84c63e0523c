#pragma once

#include <optional>
#include <vector>

#include "core/progress.h"
#include "eval/batches.h"
#include "eval/metrics.h"
#include "model/model.h"

namespace pennyweight {

struct EvalSettings {
  /// The type matrices run in; each model's own where not given.
  std::optional<mx::Dtype> dtype;
  /// Positions a batch; 0: chosen by the model's width.
  int64_t batch_tokens = 0;
  /// Bytes of hidden states held at a time, over both models.
  int64_t activation_bytes = int64_t{1} << 30;
  /// A model that runs in float16 is a numeric Error, naming the place, where
  /// mlx-lm could not hold an activation; the reference is not watched.
  bool float16_overflow_fails = false;
};

/// What a reference's head reads over one text, kept for the next model that is
/// measured against it. The first evaluation fills it, if it held the hidden
/// states of the whole text at a time.
struct ReferenceStates {
  std::vector<mx::array> hidden;  // by batch; empty: not yet known
};

/// Runs `model`, and `reference` beside it, over the sequences and scores
/// each next token. Both walk block by block over waves of sequences, so that
/// memory holds one block, the hidden states of a wave and a tile of logits,
/// never all logits. The two must share a vocabulary size (invalid_argument);
/// non-finite figures are a numeric Error. `states` must be of the same
/// reference, sequences and settings.
Evaluation evaluate(
    const Model& model,
    const Model* reference,
    const std::vector<ScoredSequence>& sequences,
    const EvalSettings& settings = {},
    const ProgressFn& progress = {},
    ReferenceStates* states = nullptr);

}  // namespace pennyweight
