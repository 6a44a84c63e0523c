#include "pass/expert_statistics.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <cmath>

#include "ops/evaluated.h"

namespace pennyweight {

namespace {

// Positions of a batch that are tokens.
std::vector<uint32_t> positions(const TokenBatch& batch) {
  std::vector<uint32_t> all;
  if (!batch.picks) {
    for (uint32_t i = 0; i < batch.tokens.size(); ++i) {
      all.push_back(i);
    }
    return all;
  }
  auto picks = evaluated(mx::astype(*batch.picks, mx::uint32));
  all.assign(picks.data<uint32_t>(), picks.data<uint32_t>() + picks.size());
  return all;
}

// What the expert reads of its tokens, and weighed down of borrowed ones; of
// all tokens of a batch [tokens, hidden].
mx::array expert_rows(
    const BlockStream& stream,
    const ModuleSpec& module,
    const mx::array& all,
    const std::vector<uint32_t>& own,
    const std::vector<uint32_t>& borrowed) {
  const auto read = [&](const std::vector<uint32_t>& rows) {
    const mx::array picks(
        rows.begin(), {static_cast<int>(rows.size())}, mx::uint32);
    return stream.expert_input(module, mx::take(all, picks, 0));
  };
  const auto read_borrowed = [&] {
    auto x = read(borrowed);
    return x * mx::array(std::sqrt(kBorrowedShare), x.dtype());
  };
  if (borrowed.empty()) {
    return read(own);
  }
  return own.empty() ? read_borrowed()
                     : mx::concatenate({read(own), read_borrowed()}, 0);
}

}  // namespace

ExpertTokens::ExpertTokens(
    const BlockStream& stream,
    const std::vector<TokenBatch>& batches,
    size_t fit_batches,
    int64_t floor,
    const SumFn& sum) {
  const auto count = static_cast<size_t>(stream.spec().moe->count);
  own_.assign(fit_batches, std::vector<std::vector<uint32_t>>(count));
  borrowed_ = own_;
  choose(stream, batches);
  std::vector<double> counts(count + 1, 0.0);
  for (size_t i = 0; i < fit_batches; ++i) {
    for (size_t e = 0; e < count; ++e) {
      counts[e] += double(own_[i][e].size());
    }
    counts[count] += double(batches[i].count);
  }
  counts = sum(std::move(counts));
  for (size_t e = 0; e < count; ++e) {
    counts_.push_back(std::llround(counts[e]));
  }
  borrow(batches, floor, counts[count]);
}

void ExpertTokens::choose(
    const BlockStream& stream,
    const std::vector<TokenBatch>& batches) {
  for (size_t i = 0; i < own_.size(); ++i) {
    auto experts = evaluated(mx::contiguous(stream.routing(i).experts));
    const int chosen = experts.shape(1);
    const auto* data = experts.data<uint32_t>();
    for (uint32_t position : positions(batches[i])) {
      for (int k = 0; k < chosen; ++k) {
        own_[i][data[position * uint32_t(chosen) + uint32_t(k)]].push_back(
            position);
      }
    }
  }
}

void ExpertTokens::borrow(
    const std::vector<TokenBatch>& batches,
    int64_t floor,
    double all) {
  for (size_t e = 0; e < counts_.size(); ++e) {
    const double lacking = std::min(double(floor), all) - double(counts_[e]);
    if (lacking <= 0) {
      continue;
    }
    const double step = std::max(1.0, all / lacking);
    for (size_t i = 0; i < own_.size(); ++i) {
      const auto tokens = positions(batches[i]);
      for (double at = 0; at < double(tokens.size()); at += step) {
        const uint32_t position = tokens[static_cast<size_t>(at)];
        if (!std::ranges::binary_search(own_[i][e], position)) {
          borrowed_[i][e].push_back(position);
        }
      }
    }
  }
}

std::vector<InputStatistics> collect_expert_statistics(
    const BlockStream& stream,
    const BlockStream* full,
    const ExpertTokens& tokens,
    const std::vector<ModuleSpec>& experts,
    bool magnitudes,
    bool together,
    const std::optional<mx::array>& divisors) {
  std::vector<StatisticsSum> sums;
  const int in = static_cast<int>(experts.front().in);
  for (size_t i = 0; i < (together ? 1 : experts.size()); ++i) {
    sums.emplace_back(in, full ? in : 0, 0, magnitudes);
  }
  for (size_t batch = 0; batch < tokens.batches(); ++batch) {
    // Of all experts; made once.
    const auto inputs = [&](const BlockStream& from) {
      return evaluated(mx::flatten(from.input(experts.front(), batch), 0, 1));
    };
    const auto x = inputs(stream);
    const auto x_full = full ? inputs(*full) : x;
    for (size_t e = 0; e < experts.size(); ++e) {
      const ModuleSpec& module = experts[e];
      const auto& own = tokens.own(batch, module.part);
      const auto& borrowed = tokens.borrowed(batch, module.part);
      if (own.empty() && borrowed.empty()) {
        continue;
      }
      std::vector<mx::array> parts{
          expert_rows(stream, module, x, own, borrowed)};
      if (full) {
        parts.push_back(expert_rows(*full, module, x_full, own, borrowed));
      }
      sums[together ? 0 : e].add(parts);
    }
  }
  std::vector<InputStatistics> results;
  for (const auto& sum : sums) {
    results.push_back(sum.finish(divisors));
  }
  return results;
}

}  // namespace pennyweight
