#pragma once

namespace pennyweight::cli {

/// Parses and runs; returns the exit code: 0 done, 1 internal error, 2 wrong
/// usage, 3 not found, 4 corrupt input, 5 the system refused (disk, memory,
/// network, permission), 6 not supported, 7 unusable numbers, 130 stopped by
/// the user.
int run(int argc, const char* const* argv);

}  // namespace pennyweight::cli
