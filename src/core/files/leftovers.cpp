#include "core/files/leftovers.h"

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>

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
  pid_t pid = 0;
  const char* end = entry.data() + entry.size();
  auto [stop, error] = std::from_chars(entry.data() + prefix.size(), end, pid);
  const bool whole = error == std::errc() && stop == end && pid > 0;
  return whole ? std::optional(pid) : std::nullopt;
}

bool is_gone(pid_t pid) {
  return ::kill(pid, 0) != 0 && errno == ESRCH;
}

}  // namespace pennyweight
