#pragma once

#include <algorithm>

#include "commands/quantize/quantize.h"
#include "method/awq/fold_probe.h"
#include "method/gptq/stage.h"
#include "method/learned/stage.h"

namespace pennyweight {

/// What `quantize` rounds a block by: GPTQ, before it AWQ's folding and after
/// it learned rounding, where these sizes ask for them.
class RoundingChain {
 public:
  explicit RoundingChain(const StageSizes& sizes)
      : sizes_(sizes),
        gptq_(gptq_options_),
        folding_(AwqOptions{}, gptq_, std::max(1, sizes.fold_every)),
        learned_(first(), learned_options(sizes)) {}
  RoundingChain(const RoundingChain&) = delete;
  RoundingChain& operator=(const RoundingChain&) = delete;

  Stage& stage() {
    return sizes_.learn_steps > 0 ? learned_ : first();
  }
  /// All that affects the result, by names.
  Json options() const {
    Json json{
        {"gptq", options_to_json(gptq_options_, true)},
        {"fold_every", sizes_.fold_every}};
    if (sizes_.learn_steps > 0) {
      json["learned"] = options_to_json(learned_options(sizes_), true);
    }
    return json;
  }

 private:
  static LearnedOptions learned_options(const StageSizes& sizes) {
    LearnedOptions options;
    options.steps = sizes.learn_steps;
    return options;
  }
  Stage& first() {
    return sizes_.fold_every > 0 ? static_cast<Stage&>(folding_) : gptq_;
  }

  StageSizes sizes_;
  GptqOptions gptq_options_{};
  GptqStage gptq_;
  FoldProbe folding_;
  LearnedStage learned_;
};

}  // namespace pennyweight
