#include "commands/gptq.h"

#include "cli/walk_command.h"

namespace pennyweight::cli {

Command gptq_command() {
  return walk_command<GptqRunOptions>(
      "gptq",
      "Quantize by GPTQ: codes, scales and biases fitted to calibration text",
      "  pennyweight gptq --model Qwen/Qwen3-0.6B --mlx-path out "
      "--num-samples 128\n"
      "  pennyweight gptq --model folder --mlx-path out --bits 3 "
      "--data-path notes.txt\n"
      "  pennyweight gptq --model folder --mlx-path out --plain\n"
      "  mpirun -n 2 pennyweight gptq --model folder --mlx-path out\n",
      gptq);
}

}  // namespace pennyweight::cli
