// The part of a block's task that mixtures of experts need.

#include <algorithm>

#include "core/json.h"

#include "run/block_task.h"

namespace pennyweight {

namespace {

// Of all experts that read one kind of input.
std::string group_name(const ModuleSpec& expert) {
  return expert.input_id.substr(0, expert.input_id.rfind('.'));
}

}  // namespace

int64_t expert_bytes(const ModuleSpec& expert, bool shifts) {
  return 4 * expert.in * expert.in * (shifts ? 2 : 1);
}

// As many experts' at once as fit some memory, for those that are asked next.
InputStatistics WalkTask::expert_statistics(
    const LinearGroup& group,
    const StatisticsWanted& wanted,
    bool shifts) {
  const ModuleSpec& asked = group.modules.front();
  if (!expert_tokens_) {
    expert_tokens_.emplace(
        inputs().stream(),
        state_.batches,
        state_.fit_batches,
        few_tokens(),
        [&](std::vector<double> counts) {
          return state_.ranks.sum(std::move(counts));
        });
  }
  const bool together = wanted.experts_together;
  const std::string id = together ? group_name(asked) : asked.input_id;
  if (!expert_sums_.contains(id)) {
    expert_sums_.clear();
    std::vector<ModuleSpec> experts;
    const int64_t bytes = expert_bytes(asked, shifts);
    const auto most = std::max<int64_t>(1, kExpertSums / bytes);
    for (const ModuleSpec& module : list_modules(spec_)) {
      const bool first =
          experts.empty() || experts.back().input_id != module.input_id;
      if (module.expert && module.input == asked.input && first &&
          (together ||
           (module.part >= asked.part &&
            static_cast<int64_t>(experts.size()) < most))) {
        experts.push_back(module);
      }
    }
    auto sums = collect_expert_statistics(
        inputs().stream(),
        shifts ? &full_.stream() : nullptr,
        *expert_tokens_,
        experts,
        wanted.magnitudes,
        together,
        divisors_of(asked));
    for (size_t i = 0; i < sums.size(); ++i) {
      expert_sums_.emplace(
          together ? id : experts[i].input_id, summed(std::move(sums[i])));
    }
  }
  return expert_sums_.at(id);
}

Json WalkTask::coverage(std::vector<std::string>& warnings) const {
  if (!expert_tokens_) {
    return nullptr;
  }
  const auto& counts = expert_tokens_->counts();
  std::string none;
  int64_t unchosen = 0;
  int64_t few = 0;
  const int64_t floor = few_tokens();
  for (size_t e = 0; e < counts.size(); ++e) {
    few += counts[e] > 0 && counts[e] < floor;
    if (counts[e] == 0) {
      none += (++unchosen == 1 ? "" : ", ") + std::to_string(e);
    }
  }
  const auto of = " of " + std::to_string(counts.size()) + " experts ";
  if (unchosen > 0) {
    warnings.push_back(
        spec_.path + ": " + std::to_string(unchosen) + of + "(" + none +
        ") were chosen by no token of the calibration text; they were fitted "
        "to tokens that chose others");
  }
  if (few > 0) {
    warnings.push_back(
        spec_.path + ": " + std::to_string(few) + of +
        "were chosen by fewer than " + std::to_string(floor) +
        " tokens; tokens that chose others stand in for the rest");
  }
  return {{"tokens", counts}, {"unchosen", unchosen}, {"few", few}};
}

}  // namespace pennyweight
