#include "core/json.h"
#include "model/families/standard.h"

namespace pennyweight {

// mlx_lm/models/ministral3.py: llama whose queries grow with their position.
DecoderSpec read_ministral3(const FamilyInput& input) {
  const JsonView& config = input.config;
  const auto growth = read_query_growth(config);
  // Llama reads these; this class knows no biases.
  Json own = growth.config;
  for (const char* key : {"attention_bias", "mlp_bias", "rope_traditional"}) {
    own.erase(key);
  }
  FamilyInput llama = input;
  llama.config = config.like(own);
  auto spec = read_llama(llama);
  for (BlockSpec& block : spec.blocks) {
    block.attention.growth_beta = growth.beta;
    block.attention.growth_positions = growth.positions;
  }
  return spec;
}

}  // namespace pennyweight
