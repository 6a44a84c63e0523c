#pragma once

#include <filesystem>
#include <string>

#include "core/error.h"
#include "core/json.h"
#include "core/progress.h"

namespace pennyweight {

// The program knows folders. The Python package knows the hub: it fetches what
// of it a command names and hands the folders over as a JSON object
//
//   {"model": {"org/name": {"folder": PATH, "warning": TEXT} or
//                          {"folder": PATH, "socket": PATH} (run/streamed.h)
//                          or {"code": ERROR CODE, "message": TEXT}, ...},
//    "dataset": {...}}
//
// with the call, or in the variable PENNYWEIGHT_FETCHED. So the ids stay what
// cards, recipes and reports say, and an error of the hub is told like any
// other. Text that was handed over in memory is a data set that way, too.

/// The variable's object; an empty one where it is not set.
Json fetched_for_process();

/// The code of such a name; io for any other.
ErrorCode code_named(const std::string& name);

/// The local folder of a model: an existing one as it is, else what was fetched
/// for `org/name[@revision]`. not_found for what is neither, and the errors
/// that were met in fetching it.
std::filesystem::path resolve_model(
    const std::string& model,
    const Json& fetched,
    const ProgressFn& progress = {});

/// Likewise for a data set: its json, jsonl, parquet and txt files.
std::filesystem::path resolve_dataset(
    const std::string& id,
    const Json& fetched,
    const ProgressFn& progress = {});

}  // namespace pennyweight
