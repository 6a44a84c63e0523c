#include "core/error.h"
#include "core/json.h"
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
  // Llama reads these; this class knows no biases.
  Json own = config.json();
  own["rope_theta"] = parameters->number("rope_theta");
  own["rope_scaling"] = parameters->json();
  own["rope_scaling"].erase("llama_4_scaling_beta");
  for (const char* key : {"attention_bias", "mlp_bias", "rope_traditional"}) {
    own.erase(key);
  }
  FamilyInput llama = input;
  llama.config = config.like(own);
  auto spec = read_llama(llama);
  for (BlockSpec& block : spec.blocks) {
    block.attention.growth_beta = static_cast<float>(beta);
    block.attention.growth_positions = static_cast<int>(positions);
  }
  return spec;
}

}  // namespace pennyweight
