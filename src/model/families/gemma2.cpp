#include <cmath>

#include "model/config_keys.h"
#include "model/families/standard.h"

namespace pennyweight {

// mlx_lm/models/gemma2.py: norms that add 1 before and behind, and capped
// scores and logits. It knows no sliding windows.
DecoderSpec read_gemma2(const FamilyInput& input) {
  const Json full = with_defaults(
      input.config.json(),
      {{"attn_logit_softcapping", 50.0},
       {"final_logit_softcapping", 30.0},
       {"query_pre_attn_scalar", 144.0}});
  const JsonView config(full, input.config.origin());
  check_standard_config(config, "gelu_pytorch_tanh", "hidden_activation");
  check_config_keys(
      config,
      with_standard_keys(
          {"hidden_activation",
           "attn_logit_softcapping",
           "final_logit_softcapping",
           "query_pre_attn_scalar",
           "rope_traditional",
           "cache_implementation",
           "layer_types",
           "sliding_window"}));
  DecoderSpec spec;
  auto shape = read_standard_shape(config);
  shape.rope.traditional = config.boolean_or("rope_traditional", false);
  shape.tied = true;
  note_window(config, spec);
  read_rope(config, 10000, true, shape.rope, spec);
  refuse_rope_scaling(config, shape.rope);
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
