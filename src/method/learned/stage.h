#pragma once

#include "method/learned/rounding.h"
#include "method/stage.h"

namespace pennyweight {

/// Another stage, and then the block's codes, scales and biases trained
/// together (see learned_rounding.h) towards the full-precision block's output
/// on text that statistics are made of. What is kept is the state with the
/// least error on held-out text (where there is none, on a part of the text):
/// the first stage's own where no later one has less.
class LearnedStage : public Stage {
 public:
  /// `first` must outlive this.
  LearnedStage(Stage& first, const LearnedOptions& options)
      : first_(first), options_(options) {}

  std::string name() const override {
    return first_.name();
  }
  StageNeeds needs() const override;
  int64_t working_bytes(const BlockSpec& block) const override;
  double roundings(const BlockSpec& block) const override {
    return first_.roundings(block);
  }
  BlockOutcome run(BlockTask& task) override;
  void resume(const Json& figures) override {
    first_.resume(figures);
  }

 private:
  Stage& first_;
  LearnedOptions options_;
};

}  // namespace pennyweight
