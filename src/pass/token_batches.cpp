#include "pass/token_batches.h"

#include <mlx/ops.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace pennyweight {

namespace {

using Sequences = std::vector<std::vector<int32_t>>;

void check(const Sequences& sequences, int64_t vocab) {
  for (const auto& sequence : sequences) {
    if (sequence.empty()) {
      throw argument_error("calibration", "a sequence is empty");
    }
    require_in_vocabulary(sequence, vocab, "calibration");
  }
}

TokenBatch make_batch(const Sequences& sequences, std::span<size_t> chosen) {
  size_t length = 0;
  for (size_t index : chosen) {
    length = std::max(length, sequences[index].size());
  }
  std::vector<int32_t> tokens(chosen.size() * length, 0);
  std::vector<int32_t> picks;
  for (size_t row = 0; row < chosen.size(); ++row) {
    const auto& sequence = sequences[chosen[row]];
    std::ranges::copy(sequence, tokens.begin() + row * length);
    for (size_t i = 0; i < sequence.size(); ++i) {
      picks.push_back(static_cast<int32_t>(row * length + i));
    }
  }
  return batch_of(tokens, picks, chosen.size());
}

}  // namespace

void require_in_vocabulary(
    std::span<const int32_t> tokens,
    int64_t vocab,
    const char* where) {
  for (const int32_t token : tokens) {
    if (token < 0 || token >= vocab) {
      throw argument_error(
          where,
          "token " + std::to_string(token) + " is outside the vocabulary of " +
              std::to_string(vocab) +
              "; the tokenizer does not belong to the model");
    }
  }
}

TokenBatch batch_of(
    const std::vector<int32_t>& tokens,
    const std::vector<int32_t>& picks,
    size_t rows) {
  const auto count = static_cast<int>(picks.size());
  TokenBatch batch{
      mx::array(
          tokens.data(),
          {static_cast<int>(rows), static_cast<int>(tokens.size() / rows)},
          mx::int32),
      std::nullopt,
      count};
  if (picks.size() != tokens.size()) {
    batch.picks = mx::array(picks.data(), {count}, mx::int32);
  }
  return batch;
}

std::vector<TokenBatch> make_token_batches(
    const Sequences& sequences,
    int64_t vocab,
    int64_t batch_tokens) {
  check(sequences, vocab);
  std::vector<size_t> order(sequences.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, [&](size_t a, size_t b) {
    return sequences[a].size() > sequences[b].size();
  });
  std::vector<TokenBatch> batches;
  for (size_t begin = 0; begin < order.size();) {
    // The longest is the first, so it decides how many fit.
    size_t length = sequences[order[begin]].size();
    size_t rows =
        std::max<size_t>(1, static_cast<size_t>(batch_tokens) / length);
    size_t count = std::min(rows, order.size() - begin);
    batches.push_back(
        make_batch(sequences, std::span(order).subspan(begin, count)));
    begin += count;
  }
  return batches;
}

mx::array pick_tokens(const TokenBatch& batch, const mx::array& x) {
  auto flat = mx::flatten(x, 0, 1);
  return batch.picks ? mx::take(flat, *batch.picks, 0) : flat;
}

int64_t count_tokens(const std::vector<std::vector<int32_t>>& sequences) {
  int64_t count = 0;
  for (const auto& sequence : sequences) {
    count += static_cast<int64_t>(sequence.size());
  }
  return count;
}

}  // namespace pennyweight
