#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/progress.h"
#include "format/quant_plan.h"
#include "method/block_method.h"
#include "model/model.h"
#include "pass/process_group.h"
#include "run/work/work_folder.h"

namespace pennyweight {

namespace fs = std::filesystem;

/// Token sequences of a calibration, divided.
struct CalibrationSplit {
  std::vector<std::vector<int32_t>> fit;       // statistics are made of these
  std::vector<std::vector<int32_t>> held_out;  // results are judged on these
};

/// Holds the last sixteenth of the sequences out, one to 32 of them; none of
/// fewer than 8.
CalibrationSplit split_held_out(
    std::vector<std::vector<int32_t>> sequences,
    bool hold_out);

struct WalkSettings {
  int64_t batch_tokens = 2048;   // positions that go through together
  int64_t activation_bytes = 0;  // kept in memory; what is beyond goes to disk
  fs::path scratch_folder;
};

/// Takes a stage through the model, block by block: two streams of activations,
/// the full-precision model's and that of what has been quantized so far. Each
/// finished block goes to the work folder, and one that is there already is
/// only run. Of several ranks, each streams its own sequences and statistics
/// are summed; only the first writes.
class BlockWalk {
 public:
  /// All references must outlive this. `plan` says which linears are
  /// quantized, and how.
  BlockWalk(
      const Model& model,
      const QuantPlan& plan,
      BlockMethod& stage,
      const CalibrationSplit& data,
      const WalkSettings& settings,
      const ProcessGroup& ranks);

  /// Of the sequences to fit, as many batches as this rank looks at for what
  /// is outside the blocks: a number of tokens, of all ranks together, that
  /// does not grow with the text.
  std::vector<TokenBatch> table_batches() const;
  /// `tables`: packed modules outside the blocks; those that are not there are
  /// rounded to nearest.
  void
  run(WorkFolder& work, const PackedBlock& tables, const ProgressFn& progress);

 private:
  std::vector<double> counted_work() const;
  void embed(const PackedBlock& tables);
  void
  run_new(const BlockSpec& spec, WorkFolder& work, const ProgressFn& progress);
  void run_finished(const BlockSpec& spec, const WorkFolder& work);

  const Model& model_;
  const QuantPlan& plan_;
  BlockMethod& stage_;
  const ProcessGroup& ranks_;
  std::vector<TokenBatch> batches_;  // those to fit first, then held out
  size_t fit_batches_ = 0;
  bool held_out_ = false;  // on any rank
  MemoryBudget budget_;
  std::optional<BlockStream> full_;
  std::optional<BlockStream> quantized_;
};

}  // namespace pennyweight
