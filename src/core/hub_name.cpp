#include "core/hub_name.h"

#include <algorithm>
#include <cctype>
#include <string_view>

namespace pennyweight {

namespace {

bool is_word(std::string_view text, std::string_view extra) {
  return !text.empty() && text.size() <= 200 && text.front() != '.' &&
      std::ranges::all_of(text, [extra](unsigned char c) {
        return std::isalnum(c) ||
            extra.find(static_cast<char>(c)) != std::string_view::npos;
      });
}

}  // namespace

std::optional<HubName> parse_hub_name(const std::string& text) {
  const auto at = text.find('@');
  HubName name{.id = text.substr(0, at)};
  const auto slash = name.id.find('/');
  if (slash == std::string::npos ||
      !is_word(std::string_view(name.id).substr(0, slash), "-_.") ||
      !is_word(std::string_view(name.id).substr(slash + 1), "-_.")) {
    return std::nullopt;
  }
  if (at != std::string::npos) {
    name.revision = text.substr(at + 1);
    if (!is_word(name.revision, "-_./") ||
        name.revision.find("..") != std::string::npos) {
      return std::nullopt;
    }
  }
  return name;
}

}  // namespace pennyweight
