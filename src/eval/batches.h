#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "pass/token_batches.h"

namespace pennyweight {

/// One sequence to be predicted from its own beginning. `scored[i]` says
/// whether token i counts where it is predicted; empty: every token but the
/// first does.
struct ScoredSequence {
  std::span<const int32_t> tokens;
  std::span<const uint8_t> scored{};
};

/// Sequences to be scored together, each without its last token. The batch's
/// picks are the positions that are scored, and its count is theirs.
struct EvalBatch : TokenBatch {
  mx::array targets;  // int32 [count], the next token of each
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
