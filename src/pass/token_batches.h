#pragma once

#include <mlx/array.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "ops/ops.h"

namespace pennyweight {

/// Sequences that go through the model together, padded on the right to one
/// length. Causal attention never looks at the padding.
struct TokenBatch {
  mx::array tokens;  // int32 [rows, length]
  /// Which of the rows * length positions are tokens; absent: all are.
  std::optional<mx::array> picks;
  int64_t count;  // tokens, without padding
};

/// Of `rows` rows of equal length, one behind the other; `picks` are their
/// positions that count.
TokenBatch batch_of(
    const std::vector<int32_t>& tokens,
    const std::vector<int32_t>& picks,
    size_t rows);

/// invalid_argument Error, by `where`, for a token outside [0, vocab).
void require_in_vocabulary(
    std::span<const int32_t> tokens,
    int64_t vocab,
    const char* where);

/// Groups sequences of like length into batches of at most `batch_tokens`
/// positions (one sequence at least). invalid_argument for token ids outside
/// [0, vocab) and for a sequence without tokens.
std::vector<TokenBatch> make_token_batches(
    const std::vector<std::vector<int32_t>>& sequences,
    int64_t vocab,
    int64_t batch_tokens);

int64_t count_tokens(const std::vector<std::vector<int32_t>>& sequences);

/// x [rows, length, n] of a batch to [count, n]: padding left out.
mx::array pick_tokens(const TokenBatch& batch, const mx::array& x);

}  // namespace pennyweight
