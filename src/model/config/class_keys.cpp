#include "model/config/class_keys.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "core/error.h"

namespace pennyweight {

namespace {

#include "model/config/class_keys.inc"

}  // namespace

const ClassKey* ModelClass::find(std::string_view key) const {
  auto it = std::ranges::find(keys, key, &ClassKey::name);
  return it == keys.end() ? nullptr : &*it;
}

const ModelClass& model_class(const std::string& name) {
  auto it = std::ranges::find(kModelClasses, name, &ModelClass::name);
  if (it == kModelClasses.end()) {
    throw argument_error("model", "there is no class " + name);
  }
  return *it;
}

std::string without_alias(const std::string& model_type) {
  for (const auto& [alias, family] : kAliases) {
    if (model_type == alias) {
      return family;
    }
  }
  return model_type;
}

bool is_rope_key(std::string_view key) {
  return std::ranges::find(kRopeKeys, key) != std::end(kRopeKeys);
}

bool is_loader_key(std::string_view key) {
  return std::ranges::find(kLoaderKeys, key) != std::end(kLoaderKeys);
}

}  // namespace pennyweight
