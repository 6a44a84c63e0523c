#include "model/families/family.h"
#include "model/families/standard.h"

namespace pennyweight {

// mlx_lm/models/olmo2.py: norms behind attention and MLP, none before them,
// and queries and keys normed over all heads together.
DecoderSpec read_olmo2(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  note_activation(config, spec);
  auto shape = read_standard_shape(config);
  shape.qkv_bias = config.boolean_or("attention_bias", false);
  shape.output_bias = shape.qkv_bias;
  shape.mlp_bias = config.boolean_or("mlp_bias", false);
  shape.rope.traditional = config.boolean_or("rope_traditional", false);
  shape.qk_norm = true;
  shape.tied = read_tied(input, spec);
  read_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  for (BlockSpec& block : spec.blocks) {
    block.attention_norm.reset();
    block.attention_post = {
        block.path + ".post_attention_layernorm", shape.hidden, shape.eps};
    block.mlp_norm.reset();
    block.mlp_post = {
        block.path + ".post_feedforward_layernorm", shape.hidden, shape.eps};
    block.attention.q_norm->size = block.attention.q.out;
    block.attention.k_norm->size = block.attention.k.out;
  }
  return spec;
}

}  // namespace pennyweight
