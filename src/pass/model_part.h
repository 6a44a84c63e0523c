#pragma once

#include "model/spec/decoder_spec.h"
#include "pass/process_group.h"

namespace pennyweight {

/// What of a model one process works on: all blocks, or (`pipeline`) an equal
/// share of them, through which activations go from rank to rank and gradients
/// back.
struct ModelPart {
  const ProcessGroup* ranks;
  bool pipeline;
  int first;  // blocks first .. end - 1
  int end;
  bool embeds;  // it begins with the embedding
  bool heads;   // it ends with the head

  static ModelPart
  of(const DecoderSpec& spec, const ProcessGroup& ranks, bool split) {
    const auto blocks = static_cast<int>(spec.blocks.size());
    const bool pipeline = split && ranks.size() > 1;
    if (!pipeline) {
      return {&ranks, false, 0, blocks, true, true};
    }
    const int rank = ranks.rank();
    return {
        &ranks,
        true,
        blocks * rank / ranks.size(),
        blocks * (rank + 1) / ranks.size(),
        rank == 0,
        rank + 1 == ranks.size()};
  }

  /// Whether a batch's row, or a batch of targets, is this process's: by blocks
  /// all are everyone's.
  bool takes(size_t index) const {
    return pipeline ||
        index % static_cast<size_t>(ranks->size()) ==
        static_cast<size_t>(ranks->rank());
  }
  /// The residual stream of tokens [rows, length], or the loss's gradient by
  /// it, from the rank `from`.
  mx::array receive(const mx::array& tokens, int64_t hidden, int from) const {
    return ranks->receive(
        {tokens.shape(0), tokens.shape(1), static_cast<int>(hidden)},
        mx::float32,
        from);
  }
  int previous() const {
    return ranks->rank() - 1;
  }
  int next() const {
    return ranks->rank() + 1;
  }
};

}  // namespace pennyweight
