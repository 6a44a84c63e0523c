#include "commands/command.h"
#include "commands/method_command.h"
#include "method/registry.h"

namespace pennyweight {

std::vector<Command> commands() {
  std::vector<Command> all{
      quantize_command(), plan_command(), sweep_command(), convert_command()};
  for (const MethodEntry& entry : methods()) {
    all.push_back(method_command(entry));
  }
  for (auto& command :
       {dynamic_quant_command(),
        dwq_command(),
        evaluate_command(),
        inspect_command(),
        upload_command()}) {
    all.push_back(command);
  }
  return all;
}

}  // namespace pennyweight
