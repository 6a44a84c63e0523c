#include "method/block_method.h"

namespace pennyweight {

std::optional<double> BlockFigures::error() const {
  const auto found = held_out_error.find(kept);
  return found == held_out_error.end() ? std::nullopt
                                       : std::optional(found->second);
}

Json to_json(const BlockFigures& figures) {
  Json json = figures.details;
  if (!figures.held_out_error.empty()) {
    json["held_out_error"] = figures.held_out_error;
  }
  if (!figures.kept.empty()) {
    json["kept"] = figures.kept;
  }
  json["warnings"] = figures.warnings;
  return json;
}

BlockFigures block_figures_from_json(const Json& json) {
  BlockFigures figures{
      .kept = json.value("kept", ""),
      .held_out_error =
          json.value("held_out_error", std::map<std::string, double>{}),
      .details = json,
      .warnings = json.value("warnings", std::vector<std::string>{})};
  for (const char* key : {"kept", "held_out_error", "warnings"}) {
    figures.details.erase(key);
  }
  return figures;
}

}  // namespace pennyweight
