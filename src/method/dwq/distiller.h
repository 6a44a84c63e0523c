#pragma once

#include <filesystem>
#include <optional>
#include <span>

#include "method/dwq/student.h"
#include "method/dwq/targets.h"
#include "pass/model_pass.h"

namespace pennyweight {

/// Runs chunks through a student, forward and back. On the way back blocks are
/// run again from their inputs, of which activation_bytes are kept in memory
/// and the rest in a scratch file in `folder`.
class Distiller {
 public:
  /// The student must outlive this.
  Distiller(
      Student& student,
      const ModelPart& part,
      int64_t activation_bytes,
      fs::path folder);

  /// Over all processes.
  int64_t count_tokens(std::span<const DistillChunk> chunks) const;

  /// Adds to the student's gradients those of the mean over all processes'
  /// tokens of KL(target || student) at `temperature`, and gives that mean.
  /// Chunk i's target is targets.of(first + i). numeric Error where it is not
  /// finite.
  double gradients(
      std::span<const DistillChunk> chunks,
      const Targets& targets,
      size_t first,
      double temperature);

  /// The mean at temperature 1.
  double measure(std::span<const DistillChunk> chunks, const Targets& targets);

 private:
  /// A pass over the chunks; `back` keeps what the way back needs.
  ModelPass begin(std::span<const DistillChunk> chunks, bool back);
  void forward(ModelPass& pass, size_t chunk) const;
  /// Gives the sum of the loss over the chunk's tokens.
  double through_head(
      ModelPass& pass,
      size_t chunk,
      const Targets::Rows& target,
      const ops::KlOptions& options);
  mx::array through_block(
      const BlockSpec& block,
      const mx::array& x,
      const mx::array& dy);
  /// Through what makes the token inputs of all blocks, given the gradients by
  /// those, from the last block's on; that by the embedding.
  mx::array through_token_inputs(
      const TokenBatch& batch,
      const std::vector<mx::array>& by_blocks);
  void through_embedding(const TokenBatch& batch, const mx::array& gradient);
  void read_tables();
  double mean(double sum, double tokens) const;

  Student& student_;
  ModelPart part_;
  MemoryBudget budget_;
  fs::path folder_;
  ForwardContext context_;
  std::optional<EmbeddingAndHead> tables_;  // as trained so far
  // By the token inputs of the blocks that the way back has come through.
  std::vector<mx::array> by_blocks_;
};

}  // namespace pennyweight
