#pragma once

namespace pennyweight {

/// A flag of mlx-lm's that nothing depends on here.
struct GradCheckpointOptions {
  bool grad_checkpoint = false;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "grad-checkpoint",
         .help = "Taken for mlx-lm's sake: blocks are always run again on the "
                 "way back",
         .affects_result = false,
         .advanced = true},
        self.grad_checkpoint);
  }
};

/// What to tell who gives it.
inline constexpr const char* kGradCheckpointNote =
    "--grad-checkpoint changes nothing: blocks are always run again on the way "
    "back";

}  // namespace pennyweight
