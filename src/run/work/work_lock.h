#pragma once

#include <filesystem>

#include "core/files/dir_handle.h"

namespace pennyweight {

/// The file in a work folder that one process at a time holds locked.
inline constexpr const char* kWorkLock = "lock";

/// Locks the work folder `path` of the output `target`: it is locked for as
/// long as the descriptor lives. invalid_argument where another process has it;
/// io.
Descriptor lock_work(
    const DirHandle& folder,
    const std::filesystem::path& path,
    const std::filesystem::path& target);

}  // namespace pennyweight
