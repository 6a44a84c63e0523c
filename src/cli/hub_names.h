#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/json_fwd.h"

namespace CLI {
class App;
}

namespace pennyweight::cli {

/// What an option's value stands for (OptionInfo::takes), and the value; empty
/// where it is not given.
using NamedValue = std::pair<std::string, std::string>;

/// Which hub ids the options of a command name that are no files here:
/// {"model": [...], "dataset": [...], "text": whether mlx-lm's calibration text
/// may be read}. A recipe's data set is among them.
Json hub_names(
    const std::string& command,
    const std::vector<NamedValue>& values);

/// The same of parsed flags; and "stream": true where models are to come file
/// by file (run/streamed.h).
Json hub_names(const CLI::App& command);

}  // namespace pennyweight::cli
