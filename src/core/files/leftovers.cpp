#include "core/files/leftovers.h"
#include "core/text.h"

#include <signal.h>
#include <unistd.h>

#include <cerrno>

namespace pennyweight {

std::string temporary_name(const std::string& name, const std::string& kind) {
  return "." + name + kind + std::to_string(::getpid());
}

std::optional<pid_t> owner_of(
    const std::string& entry,
    const std::string& name,
    const std::string& kind) {
  const std::string prefix = "." + name + kind;
  if (!entry.starts_with(prefix)) {
    return std::nullopt;
  }
  const auto pid = number_in<pid_t>(entry.substr(prefix.size()));
  return pid.value_or(0) > 0 ? pid : std::nullopt;
}

bool is_gone(pid_t pid) {
  return ::kill(pid, 0) != 0 && errno == ESRCH;
}

}  // namespace pennyweight
