#include "pipeline/gptq.h"

#include "cli/command.h"
#include "cli/walk_command.h"

namespace pennyweight::cli {

Command gptq_command() {
  return {
      "gptq",
      "Quantize by GPTQ: codes, scales and biases fitted to calibration text",
      "  pennyweight gptq --model Qwen/Qwen3-0.6B --mlx-path out "
      "--num-samples 128\n"
      "  pennyweight gptq --model folder --mlx-path out --bits 3 "
      "--data-path notes.txt\n"
      "  pennyweight gptq --model folder --mlx-path out --plain\n"
      "  mpirun -n 2 pennyweight gptq --model folder --mlx-path out\n",
      [](CLI::App& app) {
        auto options = std::make_shared<GptqRunOptions>();
        bind_flags(app, *options);
        return [options](Console& console) {
          run_walk(
              options->walk,
              [&](const fs::path& folder,
                  const FetchDatasetFn& fetch,
                  const Ranks& ranks,
                  const ProgressFn& progress) {
                return gptq(folder, *options, fetch, ranks, progress);
              },
              console);
        };
      }};
}

}  // namespace pennyweight::cli
