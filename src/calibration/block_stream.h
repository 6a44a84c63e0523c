#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "calibration/activation_store.h"
#include "calibration/token_batches.h"
#include "model/decoder.h"

namespace pennyweight {

/// Where the linears of a block read, in the order of the forward pass: q, k
/// and v; o; gate and up; down.
enum class BlockStep { attention_in, attention_out, mlp_in, mlp_out };

/// The steps of a block; the modules of step i are those of the i-th distinct
/// input_id of list_modules().
const std::vector<BlockStep>& block_steps();

/// Whether what the step's linear gives is added to the residual stream as it
/// is.
bool adds_to_residual(const BlockSpec& block, BlockStep step);

struct StreamSettings {
  mx::Dtype dtype = mx::float32;  // that matrices run in
  std::filesystem::path scratch_folder;
  /// Keeps a block's inputs until leave(), for start() and run().
  bool keep_start = false;
};

/// All batches' hidden states as they move through the model block by block:
/// embed(), then for each block enter(); the steps in order, each for every
/// batch; finish() of every batch; leave(). Or enter(), run(), leave().
class BlockStream {
 public:
  /// `batches` and `budget` must outlive this.
  BlockStream(
      const std::vector<TokenBatch>& batches,
      const StreamSettings& settings,
      MemoryBudget& budget);

  void embed(const OuterWeights& weights);

  /// Both must outlive the block; weights of steps to come may still change.
  void enter(const BlockSpec& spec, const BlockWeights& weights);
  /// What the step's linears read, [rows, length, in]. Weights of the steps
  /// before must be final.
  mx::array step_input(BlockStep step, size_t batch);
  /// What a step's output is added to, float32 [rows, length, hidden].
  mx::array residual(BlockStep step, size_t batch) const;
  void finish(size_t batch);
  const BlockSpec& spec() const {
    return *spec_;
  }
  /// Each batch through the entered block, from its inputs.
  void run();
  /// The entered block's input, and its output after finish() or run().
  mx::array start(size_t batch) const;
  mx::array output(size_t batch) const;
  void leave();

  int64_t scratch_bytes() const;

 private:
  const std::vector<TokenBatch>& batches_;
  StreamSettings settings_;
  ForwardContext context_;
  // A block's inputs; where they need not be kept, what follows them too.
  std::unique_ptr<ActivationStore> start_;
  // After the attention, then after the block; null without keep_start.
  std::unique_ptr<ActivationStore> after_;
  ActivationStore mixed_;  // what o reads
  ActivationStore wide_;   // what down reads
  const BlockSpec* spec_ = nullptr;
  const BlockWeights* weights_ = nullptr;

  ActivationStore& after() const {
    return after_ ? *after_ : *start_;
  }
};

}  // namespace pennyweight
