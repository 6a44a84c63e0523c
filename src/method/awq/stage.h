#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "method/awq/awq.h"
#include "method/stage.h"

namespace pennyweight {

struct AwqBlock;

/// AWQ over the linears of a block (see awq.h), with every scale group that
/// list_scale_groups() derives. Scales are searched by the Gram matrix of the
/// inputs, the best few tried on the block's output. Then the block is rounded
/// scaled and not, with searched ranges and without, and what has the least
/// error on held-out text is kept.
///
/// With `then`, that stage rounds the block, with the scales folded in and
/// without, and again the better is kept.
class AwqStage : public Stage {
 public:
  AwqStage(const AwqOptions& options, Stage* then)
      : options_(options), then_(then) {}

  std::string name() const override {
    return "awq";
  }
  StageNeeds needs() const override;
  int64_t working_bytes(const BlockSpec& block) const override;
  BlockOutcome run(BlockTask& task) override;

 private:
  void run_then(
      BlockTask& task,
      const AwqBlock& block,
      bool scaled,
      BlockOutcome& outcome);

  AwqOptions options_;
  Stage* then_;
};

}  // namespace pennyweight
