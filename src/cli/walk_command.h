#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "cli/console.h"
#include "pipeline/method_run.h"

namespace pennyweight::cli {

using RunMethod = std::function<WalkReport(
    const fs::path& model_folder,
    const FetchDatasetFn& fetch_dataset,
    const Ranks& ranks,
    const ProgressFn& progress)>;

/// Fetches the model, runs the method on it and prints what became of it. Of
/// several processes one fetches, speaks and writes the report.
void run_walk(
    const WalkOptions& options,
    const RunMethod& method,
    Console& console);

}  // namespace pennyweight::cli
