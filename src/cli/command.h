#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cli/bind.h"
#include "cli/console.h"

namespace pennyweight::cli {

/// A subcommand: `add` declares its flags on the parser and returns what runs
/// once they are parsed. One file a command; commands() lists them.
struct Command {
  std::string name;
  std::string summary;
  std::string examples;  // shown under --help
  std::function<std::function<void(Console&)>(CLI::App&)> add;
};

Command awq_command();
Command convert_command();
Command dwq_command();
Command dynamic_quant_command();
Command evaluate_command();
Command gptq_command();
Command inspect_command();
Command plan_command();
Command quantize_command();
Command sweep_command();
Command upload_command();

/// not_supported Error where a launcher has started several.
void require_one_process(const std::string& command);

inline std::vector<Command> commands() {
  return {
      quantize_command(),
      plan_command(),
      sweep_command(),
      convert_command(),
      gptq_command(),
      awq_command(),
      dynamic_quant_command(),
      dwq_command(),
      evaluate_command(),
      inspect_command(),
      upload_command()};
}

/// Parses and runs; returns the exit code: 0 done, 1 internal error, 2 wrong
/// usage, 3 not found, 4 corrupt input, 5 the system refused (disk, memory,
/// network, permission), 6 not supported, 7 unusable numbers, 130 stopped by
/// the user.
int run(int argc, const char* const* argv);

}  // namespace pennyweight::cli
