#pragma once

#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <vector>

#include "model/decoder.h"
#include "pass/activation_store.h"
#include "pass/model_part.h"
#include "pass/token_batches.h"
#include "pass/token_input_store.h"

namespace pennyweight {

struct PassSettings {
  mx::Dtype dtype = mx::float32;  // that matrices run in
  std::filesystem::path scratch_folder{};
  /// Keeps what each block reads, which input() and back() need.
  bool keep_inputs = false;
  /// The blocks that this process walks; all of them if absent.
  std::optional<ModelPart> part{};
};

/// Some of a pass's batches: begin .. end - 1.
struct BatchRange {
  size_t begin = 0;
  size_t end = std::numeric_limits<size_t>::max();
};

/// A walk of batches through a model's blocks, forward and, where the blocks'
/// inputs are kept, back. A block's weights are loaded once for all batches of
/// a walk. The residual stream and its gradients lie in memory up to a budget
/// and then in a scratch file. Where several processes share the blocks, a walk
/// takes the stream from the process before and hands it to the next one.
///
///   pass.embed(&tables);
///   pass.forward();
///   for each batch: pass.head_back(tables, batch, d(loss)/d(head_rows()));
///   pass.backward([&](const BlockSpec& block) { pass.back(block, ...); });
class ModelPass {
 public:
  /// Gives a block's weights when the walk comes to it.
  using LoadFn = std::function<BlockWeights(const BlockSpec& block)>;
  /// Is told what a block has read and made of a batch, both evaluated.
  using SeeFn = std::function<void(
      const BlockSpec& block,
      size_t batch,
      const mx::array& x,
      const mx::array& y)>;
  /// Gives a loss's gradient by a block's input x from that by its output dy,
  /// both float32 and as the block reads and gives them.
  using BackFn = std::function<
      mx::array(size_t batch, const mx::array& x, const mx::array& dy)>;

  /// `model` and `budget` must outlive this.
  ModelPass(
      const Model& model,
      std::vector<TokenBatch> batches,
      const PassSettings& settings,
      MemoryBudget& budget);

  const std::vector<TokenBatch>& batches() const {
    return batches_;
  }
  /// Tokens of all batches, without padding.
  int64_t tokens() const;
  const ForwardContext& context() const {
    return context_;
  }

  /// Sets the stream to the tokens' embeddings. A process whose part begins
  /// later receives it, and needs no tables unless tokens bring something to
  /// each block.
  void embed(const EmbeddingAndHead* tables, BatchRange range = {});
  /// The checkpoint's weights in the pass's type, expanded; numeric Error, the
  /// first time, where they are not finite.
  BlockWeights load(const BlockSpec& block);
  /// Takes the stream through all blocks, with load()'s weights unless others
  /// are given.
  void forward(
      const LoadFn& weights = {},
      BatchRange range = {},
      const SeeFn& see = {});
  /// Takes the stream through the next block.
  void step(
      const BlockSpec& block,
      const BlockWeights& weights,
      BatchRange range = {},
      const SeeFn& see = {});

  /// The stream where the walk stands, float32 [rows, length, columns]: hidden,
  /// and what stands beside (model/stream/columns.h).
  mx::array state(size_t batch) const;
  /// What a block has read, as run_block() wants it.
  mx::array input(int block, size_t batch) const;
  /// What the head reads of the batch's tokens, [tokens, hidden].
  mx::array head_rows(const EmbeddingAndHead& tables, size_t batch) const;

  /// Sets the gradient by the last block's output, given that by head_rows().
  void head_back(
      const EmbeddingAndHead& tables,
      size_t batch,
      const mx::array& by_rows);
  /// Calls `each` for every block from the last to the first.
  void backward(
      const std::function<void(const BlockSpec& block)>& each,
      BatchRange range = {});
  /// Takes the gradient back through a block.
  void back(const BlockSpec& block, const BackFn& back, BatchRange range = {});
  /// The gradient by the stream where the way back stands, as state().
  mx::array gradient(size_t batch) const;

 private:
  const Model& model_;
  std::vector<TokenBatch> batches_;
  ForwardContext context_;
  bool keep_inputs_;
  std::optional<ModelPart> part_;
  int first_;  // block
  int end_;
  std::vector<int> at_;        // of each batch, the blocks behind it
  std::vector<bool> checked_;  // of each block, that its weights are finite
  ActivationStore states_;
  ActivationStore gradients_;
  TokenInputStore token_inputs_;

  size_t slot(int block, size_t batch) const;
  BatchRange cut(BatchRange range) const;
  mx::array receive(size_t batch, int columns, int from) const;
  mx::array read_by(const BlockSpec& block, const mx::array& x, size_t batch)
      const;
};

/// What the head reads of a batch's tokens, [tokens, hidden], of its last
/// block's output x [rows, length, hidden].
mx::array head_rows_of(
    const DecoderSpec& spec,
    const EmbeddingAndHead& tables,
    const TokenBatch& batch,
    const mx::array& x,
    mx::Dtype dtype);

}  // namespace pennyweight
