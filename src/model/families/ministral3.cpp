#include "core/error.h"
#include "model/config_keys.h"
#include "model/families/standard.h"

namespace pennyweight {

// mlx_lm/models/ministral3.py: llama whose queries grow with their position.
DecoderSpec read_ministral3(const FamilyInput& input) {
  const JsonView& config = input.config;
  const auto parameters = config.object("rope_parameters");
  if (!parameters) {
    throw Error(
        ErrorCode::corrupt,
        "model",
        config.origin() + ": \"rope_parameters\" is missing");
  }
  const double beta = parameters->number("llama_4_scaling_beta");
  const auto positions = parameters->integer(
      "original_max_position_embeddings", 1, int64_t{1} << 30);
  // The class knows neither biases nor another rope_theta.
  Json own = config.json();
  own["rope_theta"] = parameters->number("rope_theta");
  own["rope_scaling"] = parameters->json();
  own["rope_scaling"].erase("llama_4_scaling_beta");
  own.erase("rope_parameters");
  for (const char* key : {"attention_bias", "mlp_bias", "rope_traditional"}) {
    if (own.contains(key) && own[key] == true) {
      throw Error(
          ErrorCode::not_supported,
          "model",
          config.origin() + ": \"" + key +
              "\", which mlx-lm does not read for this family");
    }
  }
  FamilyInput llama = input;
  llama.config = JsonView(own, config.origin());
  auto spec = read_llama_layout(llama, {});
  for (BlockSpec& block : spec.blocks) {
    block.attention.growth_beta = static_cast<float>(beta);
    block.attention.growth_positions = static_cast<int>(positions);
  }
  return spec;
}

}  // namespace pennyweight
