#include "method/block_method.h"

#include "core/json.h"

namespace pennyweight {

int64_t count_weights(const BlockSpec& block) {
  int64_t weights = 0;
  for (const ModuleSpec& module : list_modules(block)) {
    weights += module.published ? 0 : module.out * module.in;
  }
  return weights;
}

DenseBlock expand_all(const BlockTask& task, const PackedBlock& packed) {
  DenseBlock dense;
  for (const auto& [path, weight] : packed) {
    dense.insert_or_assign(path, task.expand(weight));
  }
  return dense;
}

void set_all(BlockTask& task, const PackedBlock& packed) {
  for (const auto& [path, weight] : packed) {
    task.set(path, weight);
  }
}

double judged_error(BlockTask& task, const DenseBlock& weights) {
  return task.has_held_out() ? task.held_out_error(weights)
                             : task.fit_error(weights);
}

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
