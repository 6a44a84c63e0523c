#pragma once

#include <memory>

#include "method/block_method.h"
#include "method/learned/rounding.h"

namespace pennyweight {

/// Another method, and then the block's codes, scales and biases trained
/// together (see rounding.h) towards the full-precision block's output
/// on text that statistics are made of. What is kept is the state with the
/// least error on held-out text (where there is none, on a part of the text):
/// the first method's own where no later one has less.
class LearnedMethod : public BlockMethod {
 public:
  LearnedMethod(
      std::shared_ptr<BlockMethod> first,
      const LearnedOptions& options)
      : first_(std::move(first)), options_(options) {}

  std::string name() const override {
    return first_->name();
  }
  MethodNeeds needs() const override;
  int64_t working_bytes(const BlockSpec& block) const override;
  BlockOperations operations(const BlockSpec& block, const TextSize& text)
      const override;
  BlockFigures run(BlockTask& task) override;
  void resume(const BlockFigures& figures) override {
    first_->resume(figures);
  }

 private:
  std::shared_ptr<BlockMethod> first_;
  LearnedOptions options_;
};

}  // namespace pennyweight
