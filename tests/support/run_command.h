#pragma once

#include "commands/command.h"
#include "run/run_report.h"

namespace pennyweight::testing {

/// Runs a command with options by name and gives its report as --json writes
/// it; `text`, unless it is null, gets the summary.
inline Json run_command(
    const Command& command,
    const Json& options,
    std::string* text = nullptr) {
  const auto call = command.call();
  size_t taken = 0;
  call->visit([&](const OptionInfo& info, OptionRef field) {
    if (const auto it = options.find(info.name); it != options.end()) {
      std::visit(
          [&](auto* value) {
            const Json one{{info.name, *it}};
            detail::FromJson{one, info.name}(info, *value);
          },
          field);
      ++taken;
    }
  });
  if (taken != options.size()) {
    throw std::logic_error(command.name + " lacks one of these options");
  }
  const ProcessGroup alone;
  Session session(command.name, {}, alone);
  const auto report = call->run(session);
  if (text) {
    *text = summary(report);
  }
  return to_json(report);
}

}  // namespace pennyweight::testing
