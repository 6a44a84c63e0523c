#pragma once

#include <optional>
#include <string>

#include "method/chain.h"
#include "pass/calibration_mix.h"
#include "run/active_options.h"
#include "run/options.h"
#include "run/pins/options.h"

namespace pennyweight {

/// What `quantize`, `plan` and `sweep` share.
struct PlanOptions : SourceOptions, LimitOptions {
  MixOptions mix;
  PinOptions pins;
  ActiveOptions active;
  std::string candidates =
      "2:128,2:64,2:32,3:128,3:64,3:32,4:128,4:64,4:32,5:64,5:32,6:64,8:64,"
      "bf16";
  std::string effort = "balanced";
  std::optional<int> gptq_samples;
  std::optional<int> learn_steps;
  std::optional<int> dwq_samples;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    SourceOptions::visit(self, option, true);
    MixOptions::visit(self.mix, option);
    PinOptions::visit(self.pins, option);
    ActiveOptions::visit(self.active, option);
    option(
        {.name = "candidates",
         .help = "Widths to choose from, bits:group_size or bf16 (as it is)",
         .advanced = true},
        self.candidates);
    option(
        {.name = "effort",
         .help = "How much time to take: fast rounds by GPTQ, balanced and "
                 "best learn more on more text",
         .choices = {"fast", "balanced", "best"}},
        self.effort);
    option(
        {.name = "gptq-samples",
         .help = "Sequences that rounding is fitted to (default: by --effort)",
         .advanced = true},
        self.gptq_samples);
    option(
        {.name = "learn-steps",
         .help = "Steps a block of learned rounding, where it has modules of 3 "
                 "bits and fewer; 0: none (default: by --effort)",
         .advanced = true},
        self.learn_steps);
    option(
        {.name = "dwq-samples",
         .help = "Sequences that scales and biases are distilled on; 0: none "
                 "(default: by --effort)",
         .advanced = true},
        self.dwq_samples);
    LimitOptions::visit(self, option);
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

/// Of the options' effort, "fast", "balanced" or "best", and what they say
/// beside it. invalid_argument for counts below 0, or 1 where a stage can't be
/// left out.
StageSizes stage_sizes(const PlanOptions& options);

}  // namespace pennyweight
