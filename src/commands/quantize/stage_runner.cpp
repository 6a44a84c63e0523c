#include "commands/quantize/stage_runner.h"

#include <mlx/memory.h>

#include "core/error.h"
#include "core/json.h"

namespace pennyweight {

void StageRunner::run(const std::vector<ChainStage>& chain, StageSizes& sizes) {
  using Kind = ChainStage::Kind;
  for (const ChainStage& stage : chain) {
    if (stage.kind == Kind::distill && best_.empty()) {
      break;
    }
    if (budget_) {
      budget_->fit(stage.name, sizes);
    }
    if (!has_work(stage, sizes)) {
      continue;
    }
    run_stage(stage, sizes, [&](const fs::path& output) {
      switch (stage.kind) {
        case Kind::rtn:
          return run_nearest(context_, output);
        case Kind::distill:
          return run_dwq(context_, sizes, best(), output);
        default:
          return run_rounding(context_, sizes, stage, output);
      }
    });
  }
  if (best_.empty()) {
    throw numeric_error(
        session_.command(),
        "no stage leaves a model of finite probabilities at this size; give a "
        "larger one");
  }
}

void StageRunner::run_stage(
    const ChainStage& stage,
    const StageSizes& sizes,
    const Body& body) {
  const auto& name = stage.name;
  Json& done = work_.state()["stages"];
  if (!done.contains(name)) {
    const double start = session_.seconds();
    const auto output = work_.fresh_stage(name);
    Json figures = body(output);
    mx::clear_cache();  // later stages have arrays of other sizes
    done[name] = {
        {"kl", finite_kl(output)},
        {"seconds", session_.seconds() - start},
        {"files", work_.sums(name)},
        {"figures", figures}};
    work_.save();
  }
  const Json& found = done[name];
  const double seconds = found.at("seconds").get<double>();
  if (budget_) {
    budget_->took(name, seconds, sizes);
  }
  const bool finite = !found.at("kl").is_null();
  settle(
      {.stage = stage,
       .kl = finite ? found.at("kl").get<double>()
                    : std::numeric_limits<double>::infinity(),
       .seconds = seconds,
       .figures = found.at("figures")},
      finite);
}

// Keeps the output or drops it.
void StageRunner::settle(StageOutcome outcome, bool finite) {
  const auto name = outcome.stage.name;
  outcome.kept = finite && (outcome.kl < best_kl_ || keeps_all_);
  session_.say(
      name + ": KL " + std::to_string(outcome.kl) +
      (outcome.kept ? "" : ", no better: not kept"));
  if (outcome.kept) {
    if (!best_.empty()) {
      work_.drop_stage(best_);
    }
    best_ = name;
    best_kl_ = outcome.kl;
  } else {
    outcome.note = finite ? "not better on the validation text"
                          : "its probabilities are not finite";
    if (!finite) {
      session_.note(name + ": " + outcome.note + "; not kept");
    }
    work_.drop_stage(name);
  }
  outcomes_.push_back(std::move(outcome));
}

// On the validation text; null where a model has overflown.
Json StageRunner::finite_kl(const fs::path& output) {
  try {
    const auto found = divergence(context_, output, context_.mix.gate, &gate_);
    return found.reference->kl.mean.value;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::numeric) {
      throw;
    }
    return nullptr;
  }
}

std::vector<std::string> StageRunner::kept() const {
  std::string rounding;
  for (const auto& outcome : outcomes_) {
    if (outcome.kept && outcome.stage.kind != ChainStage::Kind::distill) {
      rounding = outcome.stage.name;
    }
  }
  std::vector<std::string> names{rounding};
  if (best_ != rounding) {
    names.push_back(best_);
  }
  return names;
}

}  // namespace pennyweight
