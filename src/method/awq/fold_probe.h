#pragma once

#include "method/awq/method.h"

namespace pennyweight {

/// AWQ's folding before another method, where it helps. Every n-th block is
/// made twice, with scales folded in and without (AwqMethod), and the better is
/// kept. If that was the scaled one, the blocks up to the next such one are
/// made twice as well; if not, they are made without scales alone, since trying
/// takes more time than the other method itself.
class FoldProbe : public BlockMethod {
 public:
  FoldProbe(
      const AwqOptions& options,
      std::shared_ptr<BlockMethod> then,
      int every)
      : awq_(options, then), then_(std::move(then)), every_(every) {}

  std::string name() const override {
    return then_->name();
  }
  MethodNeeds needs() const override;
  int64_t working_bytes(const BlockSpec& block) const override;
  /// Of blocks in between those that are always tried, without a trial.
  BlockOperations operations(const BlockSpec& block, const TextSize& text)
      const override {
    return block.index % every_ == 0 ? awq_.operations(block, text)
                                     : then_->operations(block, text);
  }
  BlockFigures run(BlockTask& task) override;
  void resume(const BlockFigures& figures) override;

 private:
  AwqMethod awq_;
  std::shared_ptr<BlockMethod> then_;
  int every_;
  bool folds_ = false;  // scales were kept last
};

}  // namespace pennyweight
