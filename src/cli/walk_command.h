#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "cli/command.h"
#include "cli/console.h"
#include "run/method_run.h"

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

/// The command that runs `method` on Options, whose `walk` are WalkOptions.
template <class Options>
Command walk_command(
    const char* name,
    const char* summary,
    const char* examples,
    WalkReport (*method)(
        const fs::path& model_folder,
        const Options& options,
        const FetchDatasetFn& fetch_dataset,
        const Ranks& ranks,
        const ProgressFn& progress)) {
  return {name, summary, examples, [method](CLI::App& app) {
            auto options = std::make_shared<Options>();
            bind_flags(app, *options);
            return [options, method](Console& console) {
              run_walk(
                  options->walk,
                  [&](const fs::path& folder,
                      const FetchDatasetFn& fetch,
                      const Ranks& ranks,
                      const ProgressFn& progress) {
                    return method(folder, *options, fetch, ranks, progress);
                  },
                  console);
            };
          }};
}

}  // namespace pennyweight::cli
