#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/spec/decoder_spec.h"
#include "run/pins/options.h"

namespace pennyweight {

/// What a user says of the width of all modules that a pattern matches.
struct WidthPin {
  enum class Kind {
    pin,       // this width
    at_least,  // no fewer bits
    keep,      // none: they stay unquantized
  };

  Kind kind = Kind::pin;
  std::string said;  // the flag and its value, as an error names it
  std::string pattern;
  /// A pattern may be a role's name, and then means those modules.
  std::optional<ModuleSpec::Role> role{};
  int bits = 0;  // but of keep
  std::optional<int> group_size{};
  std::optional<std::string> mode{};
};

/// "attention", "experts", ...
std::string role_name(ModuleSpec::Role role);

/// "PATTERN=BITS[:GROUP[:MODE]]", "PATTERN=BITS" and "PATTERN". The errors,
/// invalid_argument by `where`, name the flag and what it was given.
std::vector<WidthPin> parse_pins(
    const PinOptions& options,
    const std::string& where);

}  // namespace pennyweight
