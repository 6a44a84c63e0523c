#include "pipeline/staged_work.h"

#include <chrono>

#include "core/error.h"

namespace pennyweight {

StagedWork::StagedWork(
    const fs::path& target,
    const Json& settings,
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
  std::error_code failed;
  fs::create_directories(stages(), failed);
  if (failed) {
    throw io_error("work", "can't create", stages().string(), failed.value());
  }
  return stages() / name;
}

void StagedWork::drop_stage(const std::string& name) const {
  std::error_code failed;
  fs::remove_all(stages() / name, failed);
  if (failed) {
    throw io_error(
        "work", "can't remove", (stages() / name).string(), failed.value());
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
  state_["cost_seconds"] =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  save();
  return found;
}

WidthChooser priced_widths(
    const Model& model,
    const std::vector<Candidate>& candidates,
    const RoundingCosts& costs,
    std::vector<std::string>& notes) {
  std::map<std::string, std::vector<double>> losses;
  for (const auto& own : costs.modules) {
    losses[own.path] = own.losses;
  }
  WidthChooser widths(model, candidates);
  for (const ModuleSpec& module : list_homes(model.spec)) {
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
