#pragma once

#include <optional>

#include "core/json.h"

namespace pennyweight::cli {

/// Parses and runs, in a process that is the command's own: what the system
/// refuses ends it (cli/last_words.h). Returns the exit code: 0 done, 1
/// internal error, 2 wrong usage, 3 not found, 4 corrupt input, 5 the system
/// refused (disk, memory, network, permission), 6 not supported, 7 unusable
/// numbers, 130 stopped by the user.
int run(int argc, const char* const* argv);

/// What cli/hub_names.h says of a command line, and in "progress" whether bars
/// are wanted; nothing for one that is refused, or that asks for help.
std::optional<Json> asked_names(int argc, const char* const* argv);

}  // namespace pennyweight::cli
