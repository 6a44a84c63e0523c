#pragma once

#include "core/files/dir_handle.h"
#include "core/json_fwd.h"

namespace pennyweight {

/// A checksum for each file in a folder and those in it, by its name. corrupt
/// Error for what is neither a file nor a folder, a link for instance.
Json folder_sums(const DirHandle& folder);

}  // namespace pennyweight
