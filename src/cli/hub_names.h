#pragma once

#include "core/json_fwd.h"

namespace CLI {
class App;
}

namespace pennyweight::cli {

/// Which hub ids the parsed flags of a command name that are no files here:
/// {"model": [...], "dataset": [...], "text": whether mlx-lm's calibration text
/// may be read}. A recipe's data set is among them.
Json hub_names(const CLI::App& command);

}  // namespace pennyweight::cli
