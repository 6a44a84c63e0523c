#pragma once

#include <algorithm>
#include <optional>
#include <string>

#include "core/options.h"
#include "pass/calibration_mix.h"

namespace pennyweight {

/// What `quantize`, `plan` and `sweep` share.
struct PlanOptions {
  std::string model;
  std::string assume_family;
  MixOptions mix;
  std::string candidates =
      "2:128,2:64,2:32,3:128,3:64,3:32,4:128,4:64,4:32,5:64,5:32,6:64,8:64,"
      "bf16";
  std::string effort = "balanced";
  std::optional<int> gptq_samples;
  std::optional<int> learn_steps;
  std::optional<int> dwq_samples;
  std::optional<std::string> memory_limit;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "model",
         .help = "Model folder, or a hub id such as org/name[@revision]",
         .positional = true,
         .required = true,
         .affects_result = false},  // its contents do
        self.model);
    option(
        {.name = "assume-family",
         .help = "Read a model of an unknown model_type as this family's"},
        self.assume_family);
    MixOptions::visit(self.mix, option);
    option(
        {.name = "candidates",
         .help = "Widths to choose from, bits:group_size or bf16 (as it is)"},
        self.candidates);
    option(
        {.name = "effort",
         .help = "How much time to take: fast rounds by GPTQ, balanced and "
                 "best learn more on more text",
         .choices = {"fast", "balanced", "best"}},
        self.effort);
    option(
        {.name = "gptq-samples",
         .help = "Sequences that rounding is fitted to (default: by --effort)"},
        self.gptq_samples);
    option(
        {.name = "learn-steps",
         .help = "Steps a block of learned rounding, where it has modules of 3 "
                 "bits and fewer; 0: none (default: by --effort)"},
        self.learn_steps);
    option(
        {.name = "dwq-samples",
         .help = "Sequences that scales and biases are distilled on; 0: none "
                 "(default: by --effort)"},
        self.dwq_samples);
    option(
        {.name = "memory-limit",
         .help = "Most memory to use, such as 8GB; activations past it go to "
                 "a scratch file (default: half of the machine's)",
         .affects_result = false},
        self.memory_limit);
  }
};

/// How large the result is to be: one of the three.
struct TargetOptions {
  std::optional<double> target_bpw;
  std::optional<std::string> target_size;
  std::optional<int> bits;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "target-bpw",
         .help = "Bits a weight, scales included, that are not passed; each "
                 "module's width is chosen"},
        self.target_bpw);
    option(
        {.name = "target-size",
         .help = "Instead: bytes of all tensors, such as 4.2GB"},
        self.target_size);
    option(
        {.name = "bits",
         .help = "Instead: this width in groups of 64 throughout (default 4)"},
        self.bits);
  }
};

/// What an effort does of each stage. Sequences are of the mix's `fit`, those
/// of gates of its `gate`.
struct StageSizes {
  int cost_sequences = 16;    // on which widths are chosen
  int cost_row_step = 1;      // see CostSettings::row_step
  int gate_sequences = 16;    // by which stages are kept
  int block_gate = 16;        // and of them, by which blocks are
  int report_sequences = 16;  // of the mix's report
  int gptq_sequences = 64;    // GPTQ's, and the learned rounding's
  int fold_every = 0;         // blocks between trials of AWQ's folding; 0: none
  int learn_steps = 0;        // 0: no learned rounding
  int dwq_sequences = 0;      // 0: no distillation
  int dwq_epochs = 1;
  std::optional<double> dwq_rate{};  // absent: chosen by trial

  int fit_sequences() const {
    return std::max({cost_sequences, gptq_sequences, dwq_sequences});
  }
};

/// Of the options' effort, "fast", "balanced" or "best", and what they say
/// beside it. invalid_argument for counts below 0, or 1 where a stage can't be
/// left out.
StageSizes stage_sizes(const PlanOptions& options);

}  // namespace pennyweight
