#pragma once

#include <cmath>
#include <optional>
#include <string>

#include "core/error.h"
#include "core/options.h"

namespace pennyweight {

/// How much the bytes that a token reads count where widths are chosen.
struct ActiveOptions {
  std::optional<double> prefer_active;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "prefer-active",
         .help = "Choose widths for speed, too: one percent fewer bytes read a "
                 "token may cost STRENGTH percent more estimated loss. A token "
                 "reads all of a module, and of experts those that are chosen "
                 "for it (the flag by itself: 1; 0: not at all)",
         .advanced = true,
         .takes = "STRENGTH",
         .implied = "1"},
        self.prefer_active);
  }
};

/// Of the options; invalid_argument for what is no number from 0 on.
inline double strength_of(
    const ActiveOptions& options,
    const std::string& where) {
  const double strength = options.prefer_active.value_or(0);
  if (!(strength >= 0) || !std::isfinite(strength)) {
    throw argument_error(where, "--prefer-active takes a number from 0 on");
  }
  return strength;
}

}  // namespace pennyweight
