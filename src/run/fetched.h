#pragma once

#include <filesystem>
#include <string>

#include "core/progress.h"

namespace pennyweight {

// The program knows folders. The `pennyweight` that pip installs knows the hub:
// it asks the program which hub ids a command line names (--hub-names), fetches
// them, and starts it again with the same command line and their folders in
// the variable PENNYWEIGHT_FETCHED, a JSON object
//
//   {"model": {"org/name": {"folder": PATH, "warning": TEXT} or
//                          {"code": ERROR CODE, "message": TEXT}, ...},
//    "dataset": {...}}
//
// So the ids stay what cards, recipes and reports say, and an error of the hub
// is told like any other.

/// The local folder of a model: an existing one as it is, else what was fetched
/// for `org/name[@revision]`. not_found for what is neither, and the errors
/// that were met in fetching it.
std::filesystem::path resolve_model(
    const std::string& model,
    const ProgressFn& progress = {});

/// Likewise for a data set: its json, jsonl, parquet and txt files.
std::filesystem::path resolve_dataset(
    const std::string& id,
    const ProgressFn& progress = {});

}  // namespace pennyweight
