#pragma once

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "commands/quantize/stages.h"
#include "run/time/stage_budget.h"
#include "run/work/staged_work.h"

namespace pennyweight {

/// Runs the stages of a chain one after the other, each on what is the best so
/// far; keeps an output where the KL on the validation text is the least. What
/// a run has finished before a kill is read.
class StageRunner {
 public:
  /// All must outlive this. `budget` is null without a limit of time. With
  /// `keeps_all`, which is for recipes, each finite output takes the place of
  /// the one before it, whatever its KL.
  StageRunner(
      Session& session,
      const StageContext& context,
      StagedWork& work,
      StageBudget* budget,
      bool keeps_all)
      : session_(session),
        context_(context),
        work_(work),
        budget_(budget),
        keeps_all_(keeps_all) {}

  /// The budget changes `sizes` on the way to what fits the time that is left.
  /// numeric Error where no stage leaves a model of finite probabilities.
  void run(const std::vector<ChainStage>& chain, StageSizes& sizes);

  const std::vector<StageOutcome>& outcomes() const {
    return outcomes_;
  }
  /// The folder of the best one's output.
  fs::path best() const {
    return work_.stages() / best_;
  }
  /// The stages that a recipe repeats: the one that rounds, and perhaps dwq
  /// after it.
  std::vector<std::string> kept() const;

 private:
  using Body = std::function<Json(const fs::path& output)>;

  void
  run_stage(const ChainStage& stage, const StageSizes& sizes, const Body& body);
  Json finite_kl(const fs::path& output);
  void settle(StageOutcome outcome, bool finite);

  Session& session_;
  const StageContext& context_;
  StagedWork& work_;
  StageBudget* budget_;
  bool keeps_all_;
  ReferenceStates gate_;  // of the full model
  std::string best_;      // stage
  double best_kl_ = std::numeric_limits<double>::infinity();
  std::vector<StageOutcome> outcomes_;
};

}  // namespace pennyweight
