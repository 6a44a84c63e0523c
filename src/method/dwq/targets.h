#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/progress.h"
#include "model/decoder.h"
#include "model/weights.h"
#include "ops/kl_head.h"
#include "pass/activation_store.h"
#include "pass/distill_batches.h"
#include "pass/model_part.h"

namespace pennyweight {

namespace fs = std::filesystem;

/// The sequences of one split with their batches. `name` is "train" or
/// "valid", as mlx_lm's target folders are called.
struct DistillSplit {
  std::string name;
  std::vector<std::vector<int32_t>> sequences;
  std::vector<DistillBatch> batches;
};

/// Rows of one batch that go through a model together.
struct DistillChunk {
  const DistillSplit* split;
  size_t batch;
  std::vector<size_t> rows;
  TokenBatch tokens;
};

/// This process's rows of a batch, cut into chunks of at most `most` positions
/// (one row at least).
std::vector<DistillChunk> cut_batch(
    const DistillSplit& split,
    size_t batch,
    const ModelPart& part,
    int64_t most);

/// What a student is to predict, for chunks that were prepared together.
class Targets {
 public:
  using Rows = std::variant<ops::Head, ops::TopLogits>;

  virtual ~Targets() = default;
  /// Forgets the chunks before.
  virtual void prepare(const std::vector<DistillChunk>& chunks) = 0;
  /// By the picked tokens of chunk `i`; on a part with the head only.
  virtual Rows of(size_t i) const = 0;
};

/// The teacher itself, run block by block over all chunks, so that it is read
/// once for them; only the rows before its head are kept.
class TeacherTargets : public Targets {
 public:
  /// The model must outlive this. `folder` takes a scratch file for what
  /// passes activation_bytes.
  TeacherTargets(
      const Model& model,
      const ModelPart& part,
      int64_t activation_bytes,
      fs::path folder);

  void prepare(const std::vector<DistillChunk>& chunks) override;
  Rows of(size_t i) const override;

 private:
  const Model& model_;
  ModelPart part_;
  MemoryBudget budget_;
  fs::path folder_;
  std::optional<EmbeddingAndHead> tables_;
  std::unique_ptr<ActivationStore> rows_;
};

/// A folder of mlx_lm's --target-dir: SPLIT/NNNNNNNNNN.safetensors for each
/// batch with the teacher's largest logits [rows, positions, count] and their
/// columns, `indices`.
class StoredTargets : public Targets {
 public:
  /// `vocab` is the student's, above which no column may lie (corrupt).
  StoredTargets(fs::path folder, int64_t vocab)
      : folder_(std::move(folder)), vocab_(vocab) {}

  void prepare(const std::vector<DistillChunk>& chunks) override;
  Rows of(size_t i) const override;

 private:
  fs::path folder_;
  int64_t vocab_;
  std::vector<DistillChunk> chunks_;
};

fs::path
target_file(const fs::path& folder, const std::string& split, size_t batch);

/// corrupt Error, naming the file, unless the folder's targets are of exactly
/// these batches.
void check_targets(const fs::path& folder, const DistillSplit& split);

/// Writes the targets of a split: 1,024 logits (or the whole of a smaller
/// vocabulary) in the teacher's type, and the batch's `tokens`, which mlx_lm
/// does not look at. A file that is there already stays. Of several processes
/// each does its share.
void write_targets(
    const Model& teacher,
    const ModelPart& part,
    const DistillSplit& split,
    const fs::path& folder,
    int64_t activation_bytes,
    const ProgressFn& progress);

}  // namespace pennyweight
