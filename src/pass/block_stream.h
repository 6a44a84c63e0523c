#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "model/decoder.h"
#include "pass/activation_store.h"
#include "pass/token_batches.h"
#include "pass/token_input_store.h"

namespace pennyweight {

/// Whether what the linears that read `input` give is added to the residual
/// stream as it is.
bool adds_to_residual(const BlockSpec& block, BlockInput input);

struct StreamSettings {
  mx::Dtype dtype = mx::float32;  // that matrices run in
  std::filesystem::path scratch_folder;
  /// Keeps a block's inputs until leave(), for start() and run().
  bool keep_start = false;
};

/// All batches' hidden states as they move through the model block by block:
/// embed(), then for each block enter(); advance() by the block's steps in
/// order (block_steps()), each for every batch; finish() of every batch;
/// leave(). Or enter(), run(), leave().
class BlockStream {
 public:
  /// `batches` and `budget` must outlive this.
  BlockStream(
      const std::vector<TokenBatch>& batches,
      const StreamSettings& settings,
      MemoryBudget& budget);

  void embed(const EmbeddingAndHead& weights);
  /// The same, as if the walk had come to a block, whose times are measured:
  /// what stands beside the residual stream is made up.
  void embed_for(const BlockSpec& block, const EmbeddingAndHead& weights);

  /// Both must outlive the block; weights of steps to come may still change.
  void enter(const BlockSpec& spec, const BlockWeights& weights);
  /// Brings a batch to where the step's linears read. Weights of the steps
  /// before must be final.
  void advance(size_t step, size_t batch);
  /// What the module reads in the step the batch has come to, [rows, length,
  /// in]; what all its experts are chosen from where it is an expert.
  mx::array input(const ModuleSpec& module, size_t batch) const;
  /// What the expert reads of some of the tokens [n, hidden] of its input(),
  /// [n, in].
  mx::array expert_input(const ModuleSpec& module, const mx::array& tokens)
      const;
  /// The experts that each token of the batch takes.
  Routing routing(size_t batch) const;
  /// What is added to by the linears of the step the batch has come to,
  /// float32 [rows, length, hidden].
  mx::array residual(BlockInput input, size_t batch) const;
  void finish(size_t batch);
  const BlockSpec& spec() const {
    return *spec_;
  }
  /// Each batch through the entered block, from its inputs.
  void run();
  /// The entered block's input, as run_block() wants it, and its output after
  /// finish() or run().
  mx::array start(size_t batch) const;
  mx::array output(size_t batch) const;
  void leave();

  int64_t scratch_bytes() const;

 private:
  const std::vector<TokenBatch>& batches_;
  StreamSettings settings_;
  MemoryBudget& budget_;
  ForwardContext context_;
  // A block's inputs; where they need not be kept, what follows them too.
  std::unique_ptr<ActivationStore> start_;
  // After the attention, then after the block; null without keep_start.
  std::unique_ptr<ActivationStore> after_;
  ActivationStore mixed_;                  // what o reads
  ActivationStore scanned_;                // what reads a scan beside it
  ActivationStore wide_;                   // what down reads
  std::optional<TokenInputStore> inputs_;  // what tokens bring to blocks
  const BlockSpec* spec_ = nullptr;
  const BlockWeights* weights_ = nullptr;

  ActivationStore& after() const {
    return after_ ? *after_ : *start_;
  }
  mx::array normed(const ModuleSpec& module, size_t batch) const;
  mx::array normed(BlockInput input, size_t batch) const;
  /// What the experts read, of all tokens.
  mx::array expert_input(size_t batch) const;
  mx::array behind_attention(size_t batch) const;
  mx::array behind_mlp(size_t batch) const;
  mx::array token_wide(size_t batch) const;
};

}  // namespace pennyweight
