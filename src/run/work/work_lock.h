#pragma once

#include <filesystem>

#include "core/files/dir_handle.h"

namespace pennyweight {

/// The file in a work folder that one process at a time holds locked.
inline constexpr const char* kWorkLock = "lock";

/// Locks the work folder `path` of the output `target` for as long as the
/// descriptor lives. invalid_argument Error where another process holds the
/// lock; io Error where it can't be made.
Descriptor lock_work(
    const DirHandle& folder,
    const std::filesystem::path& path,
    const std::filesystem::path& target);

}  // namespace pennyweight
