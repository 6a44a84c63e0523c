#include "commands/awq.h"

#include "cli/walk_command.h"

namespace pennyweight::cli {

Command awq_command() {
  return walk_command<AwqRunOptions>(
      "awq",
      "Quantize by AWQ: inputs scaled and ranges cut so that rounding hurts "
      "least",
      "  pennyweight awq --model Qwen/Qwen3-0.6B --mlx-path out\n"
      "  pennyweight awq --model folder --mlx-path out --bits 3 "
      "--data-path notes.txt\n"
      "  pennyweight awq --model folder --mlx-path out --then gptq\n"
      "  mpirun -n 2 pennyweight awq --model folder --mlx-path out\n",
      awq);
}

}  // namespace pennyweight::cli
