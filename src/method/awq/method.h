#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "method/awq/awq.h"
#include "method/block_method.h"

namespace pennyweight {

struct AwqBlock;

/// AWQ over the linears of a block (see awq.h), with every scale group that
/// list_scale_groups() derives. Scales are searched by the Gram matrix of the
/// inputs, the best few tried on the block's output. Then the block is rounded
/// scaled and not, with searched ranges and without, and what has the least
/// error on held-out text is kept.
///
/// With `then`, that method rounds the block, with the scales folded in and
/// without, and again the better is kept.
class AwqMethod : public BlockMethod {
 public:
  AwqMethod(const AwqOptions& options, std::shared_ptr<BlockMethod> then)
      : options_(options), then_(std::move(then)) {}

  std::string name() const override {
    return "awq";
  }
  MethodNeeds needs() const override;
  int64_t working_bytes(const BlockSpec& block) const override;
  BlockOperations operations(const BlockSpec& block, const TextSize& text)
      const override;
  BlockFigures run(BlockTask& task) override;

 private:
  void run_then(
      BlockTask& task,
      const AwqBlock& block,
      bool scaled,
      BlockFigures& figures);

  AwqOptions options_;
  std::shared_ptr<BlockMethod> then_;
};

}  // namespace pennyweight
