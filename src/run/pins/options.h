#pragma once

#include <string>
#include <vector>

#include "core/options.h"

namespace pennyweight {

/// Widths that the user says, of every command that quantizes. See parse_pins()
/// for what the texts mean.
struct PinOptions {
  std::vector<std::string> pin;
  std::vector<std::string> at_least;
  std::vector<std::string> keep;

  bool empty() const {
    return pin.empty() && at_least.empty() && keep.empty();
  }

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "pin",
         .help = "PATTERN=BITS[:GROUP[:MODE]]: this width, to the letter, such "
                 "as 'self_attn.*=6' or lm_head=8:32; may be given again. A "
                 "pattern is attention, experts, shared_expert, mlp, router, "
                 "embedding or head, or a glob (* stands for dots, too) that "
                 "matches a module's path or its end behind a dot; "
                 "'language_model.' in either counts for nothing. --at-least "
                 "and --keep (--help-all) take the same patterns",
         .takes = "PATTERN=WIDTH"},
        self.pin);
    option(
        {.name = "at-least",
         .help = "PATTERN=BITS: no fewer bits than these, such as "
                 "'model.layers.0.*=5'; may be given again",
         .advanced = true,
         .takes = "PATTERN=BITS"},
        self.at_least);
    option(
        {.name = "keep",
         .help = "PATTERN: leave these modules unquantized; may be given again",
         .advanced = true,
         .takes = "PATTERN"},
        self.keep);
  }
};

}  // namespace pennyweight
