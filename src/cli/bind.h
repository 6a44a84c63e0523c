#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/options.h"

namespace CLI {
class App;
}

namespace pennyweight::cli {

/// The group of options that only --help-all shows.
inline constexpr const char* kAdvanced = "Advanced";

/// Makes flags of `app` of what is visited; the fields must outlive the parse.
OptionSink bind_flags(CLI::App& app);

}  // namespace pennyweight::cli
