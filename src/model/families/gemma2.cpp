#include <cmath>

#include "model/families/standard.h"

namespace pennyweight {

// mlx_lm/models/gemma2.py: norms that add 1 before and behind, and capped
// scores and logits. It knows no sliding windows.
DecoderSpec read_gemma2(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  note_activation(config, spec, "gelu_pytorch_tanh", "hidden_activation");
  auto shape = read_standard_shape(config);
  shape.rope.traditional = config.boolean_or("rope_traditional", false);
  shape.tied = true;
  drop_head(input, spec);
  read_plain_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  spec.embedding_scale =
      static_cast<float>(std::sqrt(static_cast<double>(shape.hidden)));
  spec.logit_cap = read_multiplier(config, "final_logit_softcapping");
  fill_gemma_blocks(
      shape, read_multiplier(config, "query_pre_attn_scalar"), spec);
  for (BlockSpec& block : spec.blocks) {
    block.attention.cap = read_multiplier(config, "attn_logit_softcapping");
  }
  return spec;
}

}  // namespace pennyweight
