#pragma once

#include <mlx/array.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "ops/ops.h"

namespace pennyweight {

/// One sequence to be predicted from its own beginning. `scored[i]` says
/// whether token i counts where it is predicted; empty: every token but the
/// first does.
struct ScoredSequence {
  std::span<const int32_t> tokens;
  std::span<const uint8_t> scored{};
};

/// Sequences padded on the right to one length. Causal attention never looks
/// at the padding, whose rows are not scored.
struct EvalBatch {
  mx::array tokens;  // int32 [rows, length], each without its last token
  /// Rows of the flattened [rows * length] that are scored; absent: all.
  std::optional<mx::array> picks;
  mx::array targets;  // int32 [scored rows], the next token of each
  int64_t positions;  // rows * length
};

/// Groups sequences of like length into batches of at most `batch_tokens`
/// positions (one sequence at least). Sequences with nothing to score are
/// left out. invalid_argument for token ids outside [0, vocab).
std::vector<EvalBatch> make_batches(
    const std::vector<ScoredSequence>& sequences,
    int64_t vocab,
    int64_t batch_tokens);

}  // namespace pennyweight
