#include "run/time/stage_budget.h"

#include <optional>
#include <utility>

#include "core/json.h"

namespace pennyweight {

namespace {

/// Absent for a stage that plans know nothing of.
std::optional<PlannedStage> planned_stage(const std::string& name) {
  for (const auto& [stage, planned] :
       {std::pair{stage::kRtn, PlannedStage::nearest},
        {stage::kGptq, PlannedStage::gptq},
        {stage::kLearned, PlannedStage::learned},
        {stage::kDwq, PlannedStage::dwq}}) {
    if (name == stage) {
      return planned;
    }
  }
  return std::nullopt;
}

}  // namespace

StageBudget::StageBudget(
    TimeLimit limit,
    Clock::time_point start,
    StagedWork& work,
    NoteFn note)
    : limit_(std::move(limit)),
      start_(start),
      work_(work),
      note_(std::move(note)) {}

void StageBudget::tell(const std::string& text) const {
  if (!text.empty()) {
    note_(text);
  }
}

void StageBudget::fit_costs(StageSizes& sizes) {
  Json& fitted = work_.state()["fitted"];
  if (!fitted.contains("costs")) {
    const auto text = limit_.fit_costs(passed(), sizes);
    fitted["costs"] = {{"sizes", to_json(sizes)}, {"cuts", text}};
  }
  sizes = sizes_from_json(fitted.at("costs").at("sizes"));
  tell(fitted.at("costs").at("cuts").get<std::string>());
}

void StageBudget::begin(const WidthPlan& widths, const StageSizes& wanted) {
  wanted_ = wanted;
  limit_.know(widths);
  const Json& state = work_.state();
  if (state.contains("cost_seconds")) {
    limit_.took(
        PlannedStage::costs, state.at("cost_seconds").get<double>(), wanted);
  }
}

void StageBudget::fit(const std::string& name, StageSizes& sizes) {
  const auto next = planned_stage(name);
  if (!next) {
    return;
  }
  Json& fitted = work_.state()["fitted"];
  if (!fitted.contains(name)) {
    auto cut = wanted_;
    // What a stage was done with stays: a recipe has one number for all.
    if (*next > PlannedStage::gptq) {
      cut.gptq_sequences = sizes.gptq_sequences;
    }
    if (*next > PlannedStage::learned) {
      cut.learn_steps = sizes.learn_steps;
    }
    auto text = limit_.fit(*next, passed(), cut);
    if (to_json(cut) == to_json(sizes)) {
      text.clear();  // was said before the stage before
    }
    fitted[name] = {{"sizes", to_json(cut)}, {"cuts", text}};
    work_.save();
  }
  sizes = sizes_from_json(fitted.at(name).at("sizes"));
  tell(fitted.at(name).at("cuts").get<std::string>());
}

void StageBudget::took(
    const std::string& name,
    double seconds,
    const StageSizes& sizes) {
  if (const auto stage = planned_stage(name)) {
    limit_.took(*stage, seconds, sizes);
  }
}

}  // namespace pennyweight
