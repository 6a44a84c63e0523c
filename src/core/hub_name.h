#pragma once

#include <optional>
#include <string>

namespace pennyweight {

/// `org/name[@revision]`: a repository of the Hugging Face hub, and a branch,
/// tag or commit of it.
struct HubName {
  std::string id;
  std::string revision = "main";
};

/// None for what can't be such a name.
std::optional<HubName> parse_hub_name(const std::string& text);

}  // namespace pennyweight
