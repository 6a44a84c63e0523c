#pragma once

#include <mlx/array.h>

#include <filesystem>
#include <map>
#include <string>

#include "core/json.h"

/// A part of a work folder: a folder of tensors and figures with a checksum,
/// that is there whole or not at all.
namespace pennyweight {

namespace mx = mlx::core;
namespace fs = std::filesystem;

/// A JSON object that a run has written; corrupt Error when damaged.
Json read_work_json(const fs::path& path);

/// io Error that says what is done so far, on a full disk and the like.
void save_work_part(
    const fs::path& path,
    const std::map<std::string, mx::array>& tensors,
    const Json& figures,
    const std::string& so_far);

/// Views of the mapped file; corrupt Error when its checksum is wrong.
std::map<std::string, mx::array> load_work_part(const fs::path& path);
Json load_work_figures(const fs::path& path);

}  // namespace pennyweight
