#include "core/error.h"
#include "core/json.h"
#include "model/families/family.h"
#include "model/families/standard.h"

namespace pennyweight {

// mlx_lm/models/smollm3.py: llama, with layers that have no rotary embedding.
DecoderSpec read_smollm3(const FamilyInput& input) {
  const JsonView& config = input.config;
  auto spec = read_llama(input);
  const size_t layers = spec.blocks.size();
  const Json* list = config.find("no_rope_layers");
  if (list && (!list->is_array() || list->size() != layers)) {
    throw corrupt_error(
        "model",
        config.origin() + ": \"no_rope_layers\" must have " +
            std::to_string(layers) + " entries");
  }
  const auto interval = static_cast<size_t>(
      config.integer_or("no_rope_layer_interval", 4, 1, 1 << 20));
  for (size_t i = 0; i < layers; ++i) {
    // Despite its name, 1 stands for a layer that has one.
    const bool rotates = list ? list->at(i) != 0 && list->at(i) != false
                              : (i + 1) % interval != 0;
    if (!rotates) {
      spec.blocks[i].attention.rope.dims = 0;
    }
  }
  return spec;
}

}  // namespace pennyweight
