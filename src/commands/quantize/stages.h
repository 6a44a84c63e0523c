#pragma once

#include <optional>
#include <string>
#include <vector>

#include "commands/quantize/quantize.h"
#include "eval/evaluate.h"
#include "run/width_plan.h"

namespace pennyweight {

/// The model to quantize. invalid_argument for one that is quantized already.
Model open_full_model(
    const Session& session,
    const fs::path& folder,
    const PlanOptions& options,
    std::shared_ptr<ShardProvider> provider = nullptr);

/// What the options ask of widths beside a size, of which the user is told
/// what is of no effect. Errors as PinnedWidths'; invalid_argument for a
/// strength that is no number from 0 on.
WidthWishes
width_wishes(Session& session, const Model& model, const PlanOptions& options);

/// One width where the target is one, else the options' list; and what modules
/// are pinned to. The width comes first.
std::vector<Candidate> list_candidates(
    const Model& model,
    const PlanOptions& options,
    const TargetOptions& target,
    const PinnedWidths& pins);

/// Whether the target leaves widths to be chosen.
bool has_choice(const TargetOptions& target);

/// Widths for the size; invalid_argument for one above the largest that the
/// candidates allow, and as WidthChooser::choose.
WidthPlan choose_size(
    const WidthChooser& widths,
    const SizeTarget& size,
    const Session& session);

/// For the size asked for; without one, the first candidate and what is pinned.
/// invalid_argument for more than one target, for a size above the largest that
/// the candidates allow, and as WidthChooser::choose.
WidthPlan choose_widths(
    const WidthChooser& widths,
    const Model& model,
    const std::vector<Candidate>& candidates,
    const TargetOptions& target,
    const PinnedWidths& pins,
    const Session& session);

/// All files of a finished model; corrupt Error for a link and the like, which
/// no stage makes.
void copy_folder(const fs::path& from, const fs::path& to);

/// What the stages of a run work on; all outlive them.
struct StageContext {
  const Model& model;
  const fs::path& model_folder;
  const PlanOptions& options;
  const CalibrationMix& mix;
  const WidthPlan& widths;
  fs::path folder;  // each stage's output is folder / name
  const ProgressFn& progress;
};

/// Rounds to nearest.
Json run_nearest(const StageContext& context, const fs::path& output);

/// Rounds the blocks by the stage's method, fitted to the first sequences of
/// the mix and judged by its gate. The figures of RunReport.
Json run_rounding(
    const StageContext& context,
    const StageSizes& sizes,
    const ChainStage& stage,
    const fs::path& output);

/// Distills scales and biases of the model in `student`.
Json run_dwq(
    const StageContext& context,
    const StageSizes& sizes,
    const fs::path& student,
    const fs::path& output);

/// The quantized model in `folder` beside the full one. `states`: see
/// evaluate().
Evaluation divergence(
    const StageContext& context,
    const fs::path& folder,
    const TokenSequences& text,
    ReferenceStates* states = nullptr);

/// Whether a plan has blocks whose rounding is learned.
bool learns(const WidthPlan& widths);

}  // namespace pennyweight
