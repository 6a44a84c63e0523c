#pragma once

#include <mlx/array.h>

#include <map>
#include <optional>
#include <string>

#include "core/files/dir_handle.h"
#include "core/json_fwd.h"

/// What a work folder holds: JSON objects with a checksum, and parts, folders
/// of tensors and figures with one, that are there whole or not at all. Each
/// belongs to one place of one run: a checksum covers all that is read, and a
/// `salt` that says which.
namespace pennyweight {

namespace mx = mlx::core;

/// Writes an object, whole or not at all.
void write_work_json(
    const DirHandle& folder,
    const std::string& name,
    const Json& json,
    const std::string& salt);

/// Reads one; corrupt Error for any but what was written with this salt.
Json read_work_json(
    const DirHandle& folder,
    const std::string& name,
    const std::string& salt);

/// Which part of which run.
struct WorkPart {
  const DirHandle& folder;
  std::string name;
  std::string run;  // the salt of all of a run's parts

  std::string salt() const {
    return run + "/" + name;
  }
};

/// io Error that says what is done so far, on a full disk and the like.
void save_work_part(
    const WorkPart& part,
    const std::map<std::string, mx::array>& tensors,
    const Json& figures,
    const std::string& so_far);

/// Views of the mapped file; corrupt or not_found Error for any but what was
/// saved as this part.
std::map<std::string, mx::array> load_work_part(const WorkPart& part);
Json load_work_figures(const WorkPart& part);

/// What is wrong with a part, in words that name the file; absent: nothing. One
/// that can't be read is of no more use than one that is damaged.
std::optional<std::string> fault_of(const WorkPart& part);

}  // namespace pennyweight
