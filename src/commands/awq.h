#pragma once

#include <string>

#include "method/awq/awq.h"
#include "run/method_run.h"

namespace pennyweight {

/// Flags and defaults are mlx_lm.awq's, and what that lacks.
struct AwqRunOptions {
  WalkOptions walk;
  int bits = 4;
  int group_size = 64;
  int embed_bits = 4;
  int embed_group_size = 32;
  AwqOptions awq;
  std::string then;

  AwqRunOptions() {
    walk.data.num_samples = 128;
  }

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    WalkOptions::visit(self.walk, option);
    option(
        {.name = "bits",
         .help = "Bits a weight of the blocks' linears: 2, 3, 4, 5, 6 or 8"},
        self.bits);
    option(
        {.name = "group-size", .help = "Weights a group: 32, 64 or 128"},
        self.group_size);
    option(
        {.name = "embed-bits", .help = "Bits of embedding and head"},
        self.embed_bits);
    option(
        {.name = "embed-group-size", .help = "And their group size"},
        self.embed_group_size);
    AwqOptions::visit(self.awq, option);
    option(
        {.name = "then",
         .help = "Round the scaled model by GPTQ, with its defaults, rather "
                 "than to nearest",
         .choices = {"", "gptq"}},
        self.then);
  }
};

/// Quantizes the checkpoint in `model_folder` (what options.walk.model stands
/// for) by AWQ; see MethodRun.
WalkReport awq(
    const fs::path& model_folder,
    const AwqRunOptions& options,
    const FetchDatasetFn& fetch_dataset,
    const Ranks& ranks,
    const ProgressFn& progress = {});

}  // namespace pennyweight
