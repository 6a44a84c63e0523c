#include "model/decoder_spec.h"

#include <algorithm>

#include "checkpoint/checkpoint.h"
#include "core/error.h"
#include "model/families/family.h"

namespace pennyweight {

namespace {

std::vector<std::string> names_under(
    const Checkpoint& checkpoint,
    const std::string& prefix) {
  std::vector<std::string> names;
  const auto& all = checkpoint.tensors();
  for (auto it = all.lower_bound(prefix);
       it != all.end() && it->first.starts_with(prefix);
       ++it) {
    names.push_back(it->first);
  }
  return names;
}

}  // namespace

DecoderSpec read_decoder_spec(const Checkpoint& checkpoint) {
  JsonView config(
      checkpoint.config(), (checkpoint.folder() / "config.json").string());
  std::string type = config.string("model_type");
  std::string known;
  for (const Family& family : families()) {
    if (type == family.model_type) {
      auto spec = family.read(
          {config,
           [&](const std::string& name) { return checkpoint.contains(name); },
           [&](const std::string& prefix) {
             return names_under(checkpoint, prefix);
           }});
      spec.family = type;
      return spec;
    }
    known += (known.empty() ? "" : ", ") + std::string(family.model_type);
  }
  throw Error(
      ErrorCode::not_supported,
      "model",
      config.origin() + ": model_type \"" + one_line(type, 60) +
          "\" is not supported; known are " + known);
}

bool is_among(
    const std::string& name,
    const std::vector<std::string>& names) {
  return std::ranges::any_of(names, [&](const std::string& other) {
    return name == other || (other.ends_with('.') && name.starts_with(other));
  });
}

std::string module_of(const std::string& tensor) {
  return tensor.substr(0, tensor.rfind('.'));
}

}  // namespace pennyweight
