#pragma once

#include "method/awq/stage.h"

namespace pennyweight {

/// AWQ's folding before another stage, where it helps: in every n-th block
/// that stage rounds with the scales folded in and without (AwqStage), and
/// what was better there is what the blocks up to the next such one begin
/// with: with scales they try both ways, too, without them they don't search
/// scales at all. Trying costs more than the stage itself.
class FoldProbe : public Stage {
 public:
  /// `then` must outlive this.
  FoldProbe(const AwqOptions& options, Stage& then, int every)
      : awq_(options, &then), then_(then), every_(every) {}

  std::string name() const override {
    return then_.name();
  }
  StageNeeds needs() const override;
  int64_t working_bytes(const BlockSpec& block) const override;
  double roundings(const BlockSpec& block) const override {
    return then_.roundings(block);
  }
  BlockOutcome run(BlockTask& task) override;
  void resume(const Json& figures) override;

 private:
  AwqStage awq_;
  Stage& then_;
  int every_;
  bool folds_ = false;  // scales were kept last
};

}  // namespace pennyweight
