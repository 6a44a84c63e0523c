#include "model/families/mixers.h"

#include "core/error.h"

namespace pennyweight {

std::vector<std::string>
read_layer_names(const JsonView& config, const char* key, int layers) {
  const Json* types = config.find(key);
  std::vector<std::string> names;
  if (!types) {
    return names;
  }
  for (const Json& type : types->is_array() ? *types : Json::array()) {
    if (type.is_string()) {
      names.push_back(type.get<std::string>());
    }
  }
  if (!types->is_array() || names.size() != types->size() ||
      names.size() != static_cast<size_t>(layers)) {
    throw Error(
        ErrorCode::corrupt,
        "model",
        config.origin() + ": \"" + key + "\" must name " +
            std::to_string(layers) + " layers");
  }
  return names;
}

void add_convolution_source(
    const FamilyInput& input,
    const std::string& name,
    DecoderSpec& spec) {
  const auto shape = input.shape_of(name);
  if (shape.size() == 3 && shape.back() != 1) {
    TensorSource source{.name = name};
    source.width_first = true;
    spec.sources.insert_or_assign(name, std::move(source));
  }
}

void read_hybrid_rope(
    const JsonView& config,
    RopeSpec& rope,
    DecoderSpec& spec) {
  read_plain_rope(config, rope, spec);
  const auto parameters = config.object("rope_parameters");
  if (!parameters) {
    return;
  }
  if (parameters->has("rope_theta") &&
      parameters->number("rope_theta") != rope.base) {
    throw Error(
        ErrorCode::corrupt,
        "model",
        config.origin() +
            ": \"rope_theta\" and that of \"rope_parameters\" differ");
  }
  if (is_scaled(*parameters)) {
    spec.notes.push_back(
        "the scaling in rope_parameters is not used, as in mlx-lm, whose class "
        "for this family makes nothing of it");
  }
}

}  // namespace pennyweight
