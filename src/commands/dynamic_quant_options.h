#pragma once

#include <optional>
#include <string>
#include <vector>

#include "method/grad_checkpoint.h"
#include "method/registry.h"
#include "run/active_options.h"
#include "run/options.h"
#include "run/pins/options.h"
#include "text/load_data.h"

namespace pennyweight {

/// What may round once widths are chosen.
inline std::vector<std::string> names_to_round_by() {
  std::vector<std::string> names{""};
  for (const auto& entry : methods()) {
    names.push_back(entry.name);
  }
  return names;
}

/// Flags and defaults are mlx_lm.dynamic_quant's, and what that lacks.
struct DynamicQuantOptions : SourceOptions,
                             OutputOptions,
                             BatchOptions,
                             GradCheckpointOptions {
  LoadDataOptions data;
  PinOptions pins;
  ActiveOptions active;
  double target_bpw = 5.0;
  std::optional<std::string> target_size;
  int low_bits = 4;
  int low_group_size = 64;
  int high_bits = 5;
  int high_group_size = 64;
  std::optional<std::string> candidates;
  std::optional<std::string> sensitivities;
  std::optional<std::string> sensitivities_out;
  std::string then;
  bool report_ppl = false;
  std::string accumulation_dtype = "float32";

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    SourceOptions::visit(self, option);
    OutputOptions::visit(self, option);
    LoadDataOptions::visit(self.data, option);
    PinOptions::visit(self.pins, option);
    ActiveOptions::visit(self.active, option);
    option(
        {.name = "target-bpw",
         .help = "Bits a weight, scales included, that are not passed"},
        self.target_bpw);
    option(
        {.name = "target-size",
         .help = "Instead: bytes of all tensors, such as 4.2GB"},
        self.target_size);
    option(
        {.name = "low-bits",
         .help = "Bits at which sensitivities are measured, and the fewest "
                 "without --candidates"},
        self.low_bits);
    option(
        {.name = "low-group-size", .help = "And their group size"},
        self.low_group_size);
    option(
        {.name = "high-bits",
         .help = "Bits of what is most sensitive, without --candidates"},
        self.high_bits);
    option(
        {.name = "high-group-size", .help = "And their group size"},
        self.high_group_size);
    option(
        {.name = "candidates",
         .help = "Choose among these instead of low and high, bits:group_size "
                 "or bf16 (as it is): 3:64,4:64,4:32,6:64,8:64,bf16"},
        self.candidates);
    option(
        {.name = "sensitivities",
         .help = "Read sensitivities from this JSON file, mlx-lm's or ours, "
                 "instead of measuring them"},
        self.sensitivities);
    option(
        {.name = "sensitivities-out",
         .help = "Write what was measured to this JSON file, as soon as it is "
                 "(default: sensitivities.json in the output folder)",
         .affects_result = false},
        self.sensitivities_out);
    option(
        {.name = "then",
         .help = "Round by this method, on the same text, rather than to "
                 "nearest",
         .choices = names_to_round_by()},
        self.then);
    option(
        {.name = "report-ppl",
         .help = "Report the perplexity of the model before and after",
         .affects_result = false},
        self.report_ppl);
    GradCheckpointOptions::visit(self, option);
    option(
        {.name = "accumulation-dtype",
         .help = "Taken for mlx-lm's sake: gradients are always summed in "
                 "float32",
         .choices = {"float32", "bfloat16"},
         .affects_result = false,
         .advanced = true},
        self.accumulation_dtype);
    BatchOptions::visit(self, option);
  }
};

}  // namespace pennyweight
