#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/files/dir_handle.h"

namespace pennyweight {

/// What parts of a work folder are called: "block-00001", "state-0000000012".
std::string block_name(int index);
std::string state_name(int64_t step);

/// An entry of a folder that no run puts into its work folder; absent: all may
/// be a run's.
std::optional<std::string> foreign_entry(const DirHandle& folder);

/// Whether there is a block of this number or a later one.
bool has_blocks_from(const DirHandle& folder, int first);

/// Steps of the states that are there, the last first.
std::vector<int64_t> list_states(const DirHandle& folder);

}  // namespace pennyweight
