#pragma once

#include <optional>
#include <string>

#include "method/gptq/gptq.h"
#include "method/learned/rounding.h"
#include "run/method_run.h"

namespace pennyweight {

/// Flags and defaults are mlx_lm.gptq's, and what that lacks.
struct GptqRunOptions {
  WalkOptions walk;
  std::optional<int> bits;
  std::optional<int> group_size;
  int fallback_bits = 6;
  int fallback_group_size = 64;
  std::optional<int> embed_bits;
  std::string mode = "affine";
  GptqOptions gptq;
  LearnedOptions learned;

  GptqRunOptions() {
    learned.steps = 0;
  }

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    WalkOptions::visit(self.walk, option);
    option(
        {.name = "bits",
         .help = "Bits a weight of the blocks' linears: 2, 3, 4, 5, 6 or 8 "
                 "(default 4; mxfp8: 8)"},
        self.bits);
    option(
        {.name = "group-size",
         .help = "Weights a group: 32, 64 or 128 (default 64; mxfp4 and mxfp8: "
                 "32, nvfp4: 16)"},
        self.group_size);
    option(
        {.name = "fallback-bits",
         .help = "Bits of what GPTQ is not done for: embedding and head"},
        self.fallback_bits);
    option(
        {.name = "fallback-group-size", .help = "And their group size"},
        self.fallback_group_size);
    option(
        {.name = "embed-bits",
         .help = "Bits of the embedding (default: --fallback-bits)"},
        self.embed_bits);
    option(
        {.name = "mode",
         .help = "Quantization mode of the blocks' linears",
         .choices = {"affine", "mxfp4", "mxfp8", "nvfp4"}},
        self.mode);
    GptqOptions::visit(self.gptq, option);
    LearnedOptions::visit(self.learned, option);
  }
};

/// Quantizes the checkpoint in `model_folder` (what options.walk.model stands
/// for) by GPTQ; see MethodRun.
WalkReport gptq(
    const fs::path& model_folder,
    const GptqRunOptions& options,
    const FetchDatasetFn& fetch_dataset,
    const Ranks& ranks,
    const ProgressFn& progress = {});

}  // namespace pennyweight
