#include <algorithm>

#include "core/error.h"
#include "core/json.h"
#include "model/families/family.h"
#include "model/families/standard.h"

namespace pennyweight {

namespace {

// layer_types names each layer full_attention or sliding_attention; the
// window is sliding_window for the latter.
std::vector<int>
read_windows(const JsonView& config, int layers, DecoderSpec& spec) {
  count_as_read(config, {"sliding_window"});
  const Json* types = config.find("layer_types");
  if (!types) {
    return {};
  }
  if (!types->is_array() || types->size() != static_cast<size_t>(layers)) {
    throw corrupt_error(
        "model",
        config.origin() + ": \"layer_types\" must name " +
            std::to_string(layers) + " layers");
  }
  const bool slides =
      std::ranges::find(*types, Json("sliding_attention")) != types->end();
  const int64_t window = !slides ? 0
      : config.has("sliding_window")
      ? config.integer("sliding_window", 0, int64_t{1} << 30)
      : read_window(config, spec);
  std::vector<int> windows;
  bool any_full = false;
  for (const Json& type : *types) {
    auto name = type.is_string() ? type.get<std::string>() : std::string();
    bool sliding = name == "sliding_attention";
    if (!sliding && name != "full_attention") {
      spec.notes.push_back(
          "layer type " + one_line(type.dump(), 60) +
          " is not known to mlx-lm, which takes it as full_attention");
    }
    any_full = any_full || name == "full_attention";
    windows.push_back(sliding ? static_cast<int>(window) : 0);
  }
  if (!any_full) {
    throw not_supported_error(
        "model",
        config.origin() +
            ": no layer is of type full_attention, without which mlx-lm can't "
            "load the model");
  }
  return windows;
}

}  // namespace

// mlx_lm/models/llama.py
DecoderSpec read_llama(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  note_activation(config, spec);
  auto shape = read_standard_shape(config);
  shape.prefix = input.prefix;
  shape.qkv_bias = config.boolean_or("attention_bias", false);
  shape.output_bias = shape.qkv_bias;
  shape.mlp_bias = config.boolean_or("mlp_bias", false);
  shape.rope.traditional = config.boolean_or("rope_traditional", false);
  shape.tied = read_tied(input, spec);
  shape.windows = read_windows(config, shape.layers, spec);
  read_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  return spec;
}

}  // namespace pennyweight
