#include <algorithm>

#include "core/json.h"
#include "model/config/class_config.h"
#include "model/families/family.h"

namespace pennyweight {

const std::vector<Family>& families() {
#define PENNYWEIGHT_FAMILY(type, model_class, name) \
  {type, model_class, read_##name},
  static const std::vector<Family> list = {
#include "model/families/families.def"
  };
#undef PENNYWEIGHT_FAMILY
  return list;
}

DecoderSpec read_as(
    const char* model_class,
    DecoderSpec (*read)(const FamilyInput& input),
    FamilyInput input) {
  const ModelClass& type = pennyweight::model_class(model_class);
  const std::string origin = input.config.origin();
  const Json given = input.config.json();
  const auto config = class_config(input.config, type);
  std::set<std::string> reads;
  input.given = &given;
  input.config = JsonView(config.values, origin).recorded(reads);
  auto spec = read(input);
  Json patch = config.patch;
  patch.update(spec.config_patch);
  spec.config_patch = std::move(patch);
  spec.notes.insert(
      spec.notes.begin(), config.notes.begin(), config.notes.end());
  const bool windows = std::ranges::any_of(
      spec.blocks,
      [](const BlockSpec& block) { return block.attention.window > 0; });
  if (!windows && !config.window_note.empty()) {
    spec.notes.push_back(config.window_note);
  }
  check_reads(config, type, reads, spec.config_patch, origin);
  return spec;
}

}  // namespace pennyweight
