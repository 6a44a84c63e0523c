#include "pass/distill_batches.h"

#include <algorithm>
#include <numeric>

namespace pennyweight {

std::vector<size_t> NumpyRandom::permutation(size_t count) {
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  for (size_t i = count; i-- > 1;) {
    // The least 2^n - 1 that is no less than i.
    uint32_t mask = static_cast<uint32_t>(i);
    for (int shift : {1, 2, 4, 8, 16}) {
      mask |= mask >> shift;
    }
    uint32_t drawn = mask;
    do {
      drawn = static_cast<uint32_t>(bits_()) & mask;
    } while (drawn > i);
    std::swap(order[i], order[drawn]);
  }
  return order;
}

std::vector<DistillBatch> distill_batches(
    const std::vector<size_t>& lengths,
    size_t batch_size,
    size_t max_length,
    uint32_t seed) {
  constexpr size_t kPad = 32;
  std::vector<size_t> order(lengths.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(
      order, [&](size_t a, size_t b) { return lengths[a] < lengths[b]; });
  const size_t size = std::min(batch_size, lengths.size());
  std::vector<DistillBatch> sorted;
  for (size_t begin = 0; size > 0 && begin + size <= order.size();
       begin += size) {
    DistillBatch batch;
    batch.sequences.assign(
        order.begin() + static_cast<std::ptrdiff_t>(begin),
        order.begin() + static_cast<std::ptrdiff_t>(begin + size));
    const size_t longest =
        std::min(max_length, lengths[batch.sequences.back()]);
    const size_t padded = 1 + kPad * ((longest + kPad - 1) / kPad);
    batch.positions = static_cast<int>(std::min(padded, max_length) - 1);
    sorted.push_back(std::move(batch));
  }
  std::vector<DistillBatch> batches;
  for (size_t i : NumpyRandom(seed).permutation(sorted.size())) {
    batches.push_back(std::move(sorted[i]));
  }
  return batches;
}

TokenBatch token_batch(
    const std::vector<std::vector<int32_t>>& sequences,
    const DistillBatch& batch,
    std::span<const size_t> rows) {
  const auto positions = static_cast<size_t>(batch.positions);
  std::vector<int32_t> tokens(rows.size() * positions, 0);
  std::vector<int32_t> picks;
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto& sequence = sequences[batch.sequences[rows[i]]];
    const size_t given = std::min(sequence.size(), positions);
    std::copy_n(sequence.begin(), given, tokens.begin() + i * positions);
    for (size_t j = 0; j < given && j + 1 < sequence.size(); ++j) {
      picks.push_back(static_cast<int32_t>(i * positions + j));
    }
  }
  return batch_of(tokens, picks, rows.size());
}

}  // namespace pennyweight
