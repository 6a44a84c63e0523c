#pragma once

#include <filesystem>

#include "model/embedding_and_head.h"
#include "pass/activation_store.h"

namespace pennyweight {

/// What the tokens of some batches bring to some blocks
/// (DecoderSpec::token_inputs), made once where a walk begins. Of blocks that
/// read nothing of them it holds nothing.
class TokenInputStore {
 public:
  /// Of blocks first .. end - 1. `budget` must outlive this.
  TokenInputStore(
      size_t batches,
      int first,
      int end,
      MemoryBudget& budget,
      const std::filesystem::path& folder);

  /// x: the embedding of the tokens [batch, length].
  void put(
      size_t batch,
      const EmbeddingAndHead& tables,
      const mx::array& tokens,
      const mx::array& x,
      mx::Dtype dtype);
  mx::array get(const BlockSpec& block, size_t batch) const;
  /// x, and beside it what the block reads of the tokens; x itself where it
  /// reads nothing of them.
  mx::array beside(const BlockSpec& block, const mx::array& x, size_t batch)
      const;

  int64_t scratch_bytes() const {
    return store_.scratch_bytes();
  }

 private:
  size_t batches_;
  int first_;
  int end_;
  ActivationStore store_;

  size_t slot(int block, size_t batch) const;
};

}  // namespace pennyweight
