#pragma once

#include "method/block_method.h"
#include "method/gptq/gptq.h"

namespace pennyweight {

/// GPTQ over the linears of a block (see gptq.h). Unless options.plain, the
/// block is also rounded to nearest and, in every options.gate_every-th block,
/// made without each part in turn, from the same statistics. What has the least
/// error on held-out text is kept, and the figures say which.
class GptqMethod : public BlockMethod {
 public:
  explicit GptqMethod(const GptqOptions& options) : options_(options) {}

  std::string name() const override {
    return "gptq";
  }
  MethodNeeds needs() const override;
  int64_t working_bytes(const BlockSpec& block) const override;
  BlockOperations operations(const BlockSpec& block, const TextSize& text)
      const override;
  BlockFigures run(BlockTask& task) override;

 private:
  GptqOptions options_;
};

}  // namespace pennyweight
