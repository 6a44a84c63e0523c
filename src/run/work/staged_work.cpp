#include "run/work/staged_work.h"

#include <chrono>
#include <limits>

#include "core/error.h"
#include "core/json.h"
#include "core/time_left.h"
#include "run/work/folder_sums.h"

namespace pennyweight {

StagedWork::StagedWork(
    const fs::path& target,
    const WorkSettings& settings,
    const ResumePolicy& policy)
    : work_(target, settings, policy), resumed_(work_.state().has_value()) {
  if (resumed_) {
    state_ = work_.load_state_report();
  }
}

void StagedWork::save() {
  work_.save_state(work_.state().value_or(0) + 1, {}, state_);
}

fs::path StagedWork::fresh_stage(const std::string& name) const {
  drop_stage(name);
  return stages() / name;
}

void StagedWork::drop_stage(const std::string& name) const {
  work_.stages().remove(name);
}

Json StagedWork::sums(const std::string& name) const {
  return folder_sums(work_.stages().open_folder(name));
}

bool StagedWork::holds(const std::string& name, const Json& sums) const {
  try {
    return this->sums(name) == sums;
  } catch (const Error&) {
    return false;
  }
}

RoundingCosts StagedWork::costs(
    const Model& model,
    const std::vector<std::vector<int32_t>>& sequences,
    const std::vector<Candidate>& candidates,
    const StageSizes& sizes,
    uint64_t seed,
    const ProgressFn& progress) {
  if (state_.contains("costs")) {
    return costs_from_json(state_.at("costs"), "the unfinished run");
  }
  const auto start = std::chrono::steady_clock::now();
  const auto found = measure_costs(
      model,
      first_of(sequences, sizes.cost_sequences),
      {.candidates = candidates,
       .scratch_folder = work_.path(),
       .seed = seed,
       .row_step = sizes.cost_row_step},
      progress);
  state_["costs"] = to_json(found);
  state_["cost_seconds"] = seconds_since(start);
  save();
  return found;
}

namespace {

// Of finished stages the one that the run goes on from; empty: none.
std::string best_stage(const Json& stages, bool all_kept) {
  std::string best;
  double least = std::numeric_limits<double>::infinity();
  for (const auto& [name, outcome] : stages.items()) {
    const auto kl = outcome.find("kl");
    if (kl != outcome.end() && kl->is_number() &&
        (all_kept || kl->get<double>() < least)) {
      best = name;
      least = kl->get<double>();
    }
  }
  return best;
}

}  // namespace

std::vector<std::string> drop_damaged_stages(StagedWork& work, bool all_kept) {
  std::vector<std::string> dropped;
  Json& stages = work.state()["stages"];
  while (stages.is_object()) {
    const auto best = best_stage(stages, all_kept);
    if (best.empty() || work.holds(best, stages[best].value("files", Json()))) {
      break;
    }
    // What it was made of went when it turned out better: that is next.
    dropped.push_back(best);
    stages.erase(best);
  }
  return dropped;
}

WidthChooser priced_widths(
    const Model& model,
    const std::vector<Candidate>& candidates,
    const RoundingCosts& costs,
    std::vector<std::string>& notes,
    const WidthWishes& wishes) {
  std::map<std::string, std::vector<double>> losses;
  for (const auto& own : costs.modules) {
    losses[own.path] = own.losses;
  }
  WidthChooser widths(model, candidates, wishes);
  for (const ModuleSpec& module : list_stored_modules(model.spec)) {
    const auto it = losses.find(module.path);
    const auto text = widths.add(
        module,
        it == losses.end() ? std::vector<double>(candidates.size(), 0.0)
                           : it->second);
    if (text) {
      notes.push_back(*text);
    }
  }
  return widths;
}

}  // namespace pennyweight
