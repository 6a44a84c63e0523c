#include "eval/batches.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace pennyweight {

namespace {

bool is_scored(const ScoredSequence& sequence, size_t target) {
  return sequence.scored.empty() || sequence.scored[target];
}

bool has_scored(const ScoredSequence& sequence) {
  for (size_t i = 1; i < sequence.tokens.size(); ++i) {
    if (is_scored(sequence, i)) {
      return true;
    }
  }
  return false;
}

void check(const ScoredSequence& sequence, int64_t vocab) {
  if (!sequence.scored.empty() &&
      sequence.scored.size() != sequence.tokens.size()) {
    throw argument_error(
        "evaluate", "a sequence and its mask differ in length");
  }
  require_in_vocabulary(sequence.tokens, vocab, "evaluate");
}

EvalBatch pad(const std::vector<const ScoredSequence*>& group) {
  size_t length = 0;
  for (const auto* sequence : group) {
    length = std::max(length, sequence->tokens.size() - 1);
  }
  std::vector<int32_t> tokens(group.size() * length, 0);
  std::vector<int32_t> picks;
  std::vector<int32_t> targets;
  for (size_t row = 0; row < group.size(); ++row) {
    const auto& from = group[row]->tokens;
    std::copy(
        from.begin(),
        from.end() - 1,
        tokens.begin() + static_cast<std::ptrdiff_t>(row * length));
    for (size_t i = 1; i < from.size(); ++i) {
      if (is_scored(*group[row], i)) {
        picks.push_back(static_cast<int32_t>(row * length + i - 1));
        targets.push_back(from[i]);
      }
    }
  }
  return {
      batch_of(tokens, picks, group.size()),
      mx::array(targets.begin(), {static_cast<int>(targets.size())}, mx::int32),
      static_cast<int64_t>(tokens.size())};
}

}  // namespace

std::vector<EvalBatch> make_batches(
    const std::vector<ScoredSequence>& sequences,
    int64_t vocab,
    int64_t batch_tokens) {
  std::vector<const ScoredSequence*> order;
  for (const auto& sequence : sequences) {
    check(sequence, vocab);
    if (has_scored(sequence)) {
      order.push_back(&sequence);
    }
  }
  std::ranges::stable_sort(order, std::greater<>(), [](const auto* sequence) {
    return sequence->tokens.size();
  });
  std::vector<EvalBatch> batches;
  std::vector<const ScoredSequence*> group;
  for (const auto* sequence : order) {
    // The first of a group is its longest.
    auto length = group.empty() ? 0 : group.front()->tokens.size() - 1;
    if (!group.empty() &&
        static_cast<int64_t>((group.size() + 1) * length) > batch_tokens) {
      batches.push_back(pad(group));
      group.clear();
    }
    group.push_back(sequence);
  }
  if (!group.empty()) {
    batches.push_back(pad(group));
  }
  return batches;
}

}  // namespace pennyweight
