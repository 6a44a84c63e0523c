#include "model/families/family.h"
#include "model/families/standard.h"

namespace pennyweight {

// mlx_lm/models/granite.py: llama with four multipliers.
DecoderSpec read_granite(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  note_activation(config, spec);
  auto shape = read_standard_shape(config);
  use_plain_heads(shape, spec);
  shape.qkv_bias = config.boolean_or("attention_bias", false);
  shape.output_bias = shape.qkv_bias;
  shape.mlp_bias = config.boolean_or("mlp_bias", false);
  shape.tied = read_tied(input, spec);
  read_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  spec.embedding_scale = read_multiplier(config, "embedding_multiplier");
  spec.logit_scale = 1 / read_multiplier(config, "logits_scaling");
  for (BlockSpec& block : spec.blocks) {
    block.attention.scale = read_multiplier(config, "attention_multiplier");
    block.residual_scale = read_multiplier(config, "residual_multiplier");
    // The class asks mlx_lm.convert for these widths.
    block.attention.o.converts_as = make_quant_spec("affine", 8, 64);
    block.mlp->down.converts_as = make_quant_spec("affine", 8, 64);
  }
  if (spec.head) {
    spec.head->converts_as = make_quant_spec("affine", 8, 64);
  }
  return spec;
}

}  // namespace pennyweight
