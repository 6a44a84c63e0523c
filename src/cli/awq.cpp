#include "pipeline/awq.h"

#include "cli/command.h"
#include "cli/walk_command.h"

namespace pennyweight::cli {

Command awq_command() {
  return {
      "awq",
      "Quantize by AWQ: inputs scaled and ranges cut so that rounding hurts "
      "least",
      "  pennyweight awq --model Qwen/Qwen3-0.6B --mlx-path out\n"
      "  pennyweight awq --model folder --mlx-path out --bits 3 "
      "--data-path notes.txt\n"
      "  pennyweight awq --model folder --mlx-path out --then gptq\n"
      "  mpirun -n 2 pennyweight awq --model folder --mlx-path out\n",
      [](CLI::App& app) {
        auto options = std::make_shared<AwqRunOptions>();
        bind_flags(app, *options);
        return [options](Console& console) {
          run_walk(
              options->walk,
              [&](const fs::path& folder,
                  const FetchDatasetFn& fetch,
                  const Ranks& ranks,
                  const ProgressFn& progress) {
                return awq(folder, *options, fetch, ranks, progress);
              },
              console);
        };
      }};
}

}  // namespace pennyweight::cli
