#include "model/names/present.h"

#include <map>
#include <vector>

namespace pennyweight {

void require_present(
    const ModelTensors& tensors,
    const ClassNames& names,
    const NamesSpec& spec,
    const std::function<void(const std::string& name)>& missing) {
  const auto layers = names.facts.at("layers").get<std::string>() + ".*.";
  std::map<std::string, std::vector<std::string>> groups;
  for (const auto& [pattern, tensor] : names.tensors) {
    if (!tensor.with.empty()) {
      groups[tensor.with].push_back(pattern);
    }
    const bool wanted = tensor.always || (tensor.untied && !spec.tied);
    const int count = pattern.starts_with(layers) ? spec.layers : 1;
    for (int layer = 0; wanted && layer < count; ++layer) {
      const auto name = filled(pattern, {std::to_string(layer)});
      if (!tensors.contains(name)) {
        missing(name);
      }
    }
  }
  for (const auto& [number, patterns] : groups) {
    for (int layer = 0; layer < spec.layers; ++layer) {
      std::vector<std::string> absent;
      for (const auto& pattern : patterns) {
        const auto name = filled(pattern, {std::to_string(layer)});
        if (!tensors.contains(name)) {
          absent.push_back(name);
        }
      }
      if (!absent.empty() && absent.size() < patterns.size()) {
        missing(absent.front());
      }
    }
  }
}

}  // namespace pennyweight
