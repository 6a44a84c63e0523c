#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "pass/token_batches.h"

namespace pennyweight {

/// numpy.random.seed(seed) and the permutations that follow: MT19937, and a
/// shuffle from the end by masked draws with rejection. mlx_lm's dwq orders its
/// rows by it.
class NumpyRandom {
 public:
  explicit NumpyRandom(uint32_t seed) : bits_(seed) {}
  /// numpy.random.permutation(count); at most 2^32.
  std::vector<size_t> permutation(size_t count);

 private:
  std::mt19937 bits_;
};

/// Sequences that a step is made of.
struct DistillBatch {
  std::vector<size_t> sequences;  // by index
  /// Tokens [sequences, positions] go in, padded by zeros; the token behind
  /// each is what it is to predict.
  int positions = 0;
};

/// The batches that mlx_lm's dwq makes of sequences of these lengths, in its
/// order: sorted by length, cut into batches (what is left over is dropped),
/// shuffled by the seed; padded to one more than a multiple of 32, at most
/// max_length. Fewer sequences than batch_size make one batch, where mlx_lm
/// stops.
std::vector<DistillBatch> distill_batches(
    const std::vector<size_t>& lengths,
    size_t batch_size,
    size_t max_length,
    uint32_t seed);

/// Rows `rows` of a batch; its picks are the positions with a token behind.
TokenBatch token_batch(
    const std::vector<std::vector<int32_t>>& sequences,
    const DistillBatch& batch,
    std::span<const size_t> rows);

}  // namespace pennyweight
