#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "pass/statistics.h"

namespace pennyweight {

/// The tokens that chose each expert of a block, in the batches to fit, and
/// those that stand in for an expert that few chose.
class ExpertTokens {
 public:
  /// `sum` adds a vector up over all processes.
  using SumFn = std::function<std::vector<double>(std::vector<double>)>;

  /// Of the streams' entered block. An expert with fewer than `floor` tokens
  /// in all gets as many others, evenly spaced, as it lacks.
  ExpertTokens(
      const BlockStream& stream,
      const std::vector<TokenBatch>& batches,
      size_t fit_batches,
      int64_t floor,
      const SumFn& sum);

  size_t batches() const {
    return own_.size();
  }
  /// Tokens of all processes that chose the expert.
  const std::vector<int64_t>& counts() const {
    return counts_;
  }
  /// Positions in a batch, uint32.
  const std::vector<uint32_t>& own(size_t batch, int64_t expert) const {
    return own_[batch][static_cast<size_t>(expert)];
  }
  const std::vector<uint32_t>& borrowed(size_t batch, int64_t expert) const {
    return borrowed_[batch][static_cast<size_t>(expert)];
  }

 private:
  void choose(
      const BlockStream& stream,
      const std::vector<TokenBatch>& batches);
  void
  borrow(const std::vector<TokenBatch>& batches, int64_t floor, double all);

  // By batch and expert.
  std::vector<std::vector<std::vector<uint32_t>>> own_, borrowed_;
  std::vector<int64_t> counts_;
};

/// What a borrowed token weighs beside one that chose the expert.
inline constexpr float kBorrowedShare = 0.25f;

/// As collect_statistics(), of what each of `experts` reads of its tokens, in
/// one pass. x_full is what the full-precision expert makes of the
/// full-precision model's stream at those tokens. `together`: one sum for all
/// of them.
std::vector<InputStatistics> collect_expert_statistics(
    const BlockStream& stream,
    const BlockStream* full,
    const ExpertTokens& tokens,
    const std::vector<ModuleSpec>& experts,
    bool magnitudes,
    bool together,
    const std::optional<mx::array>& divisors = std::nullopt);

}  // namespace pennyweight
