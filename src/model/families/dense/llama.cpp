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
  const Json* types = find_layer_list(config, "layer_types", layers);
  if (!types) {
    return {};
  }
  const bool slides =
      std::ranges::find(*types, Json("sliding_attention")) != types->end();
  const int64_t window = !slides ? 0
      : config.has("sliding_window")
      ? config.integer("sliding_window", 0, int64_t{1} << 30)
      : read_window(config, spec);
  std::vector<int> windows;
  for (const Json& type : *types) {
    auto name = type.is_string() ? type.get<std::string>() : std::string();
    bool sliding = name == "sliding_attention";
    if (!sliding && name != "full_attention") {
      spec.notes.push_back(
          "layer type " + one_line(type.dump(), 60) +
          " is not known to mlx-lm, which takes it as full_attention");
    }
    windows.push_back(sliding ? static_cast<int>(window) : 0);
  }
  require_full_attention(config, *types);
  return windows;
}

}  // namespace

// mlx_lm/models/llama.py
DecoderSpec read_llama(const FamilyInput& input) {
  DecoderSpec spec;
  auto shape = read_standard_shape(
      input,
      {.qkv_bias = "attention_bias",
       .output_bias = "attention_bias",
       .mlp_bias = "mlp_bias",
       .traditional = "rope_traditional",
       .rope = RopeFact::own},
      spec);
  shape.windows = read_windows(input.config, shape.layers, spec);
  read_rope(input.config, shape.rope, spec);
  fill_standard(shape, spec);
  return spec;
}

}  // namespace pennyweight
