#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

namespace pennyweight {

/// What is on its way to become `name` has a hidden name beside it, of its
/// kind (".part") and this process.
std::string temporary_name(const std::string& name, const std::string& kind);

/// The process that gave `entry` such a name; absent where none did.
std::optional<pid_t> owner_of(
    const std::string& entry,
    const std::string& name,
    const std::string& kind);

/// Whether no process of this number runs here.
bool is_gone(pid_t pid);

}  // namespace pennyweight
