#pragma once

#include <filesystem>
#include <optional>
#include <span>

#include "method/dwq/student.h"
#include "method/dwq/targets.h"
#include "model/decoder.h"
#include "pass/activation_store.h"

namespace pennyweight {

/// Runs chunks through a student, forward and back. Blocks are run again on
/// the way back from their kept inputs, so that memory is one block's and
/// activation_bytes, the rest of the inputs being in a scratch file in
/// `folder`.
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
  struct Slope {
    double loss = 0;                // the sum over the chunk's tokens
    std::optional<mx::array> by_x;  // float32, by the last block's output
  };

  mx::array
  forward(const TokenBatch& batch, ActivationStore* kept, size_t chunk) const;
  Slope through_head(
      const TokenBatch& batch,
      const Targets& targets,
      size_t target,
      const mx::array& x,
      const ops::KlOptions& options,
      bool gradients);
  mx::array through_block(
      int block,
      const ActivationStore& kept,
      size_t chunk,
      const mx::array& dy);
  void through_embedding(const TokenBatch& batch, const mx::array& slope);
  size_t slot(int block, size_t chunk) const;
  double mean(double sum, double tokens) const;

  Student& student_;
  ModelPart part_;
  MemoryBudget budget_;
  fs::path folder_;
  ForwardContext context_;
  std::optional<OuterWeights> outer_;  // as trained so far
};

}  // namespace pennyweight
