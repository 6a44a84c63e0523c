#include "model/families/standard.h"

namespace pennyweight {

// mlx_lm/models/glm4.py: norms before and behind, gate and up in one matrix,
// half of each head rotated.
DecoderSpec read_glm4(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  note_activation(config, spec);
  auto shape = read_standard_shape(config);
  shape.qkv_bias = config.boolean_or("attention_bias", false);
  shape.rope.traditional = config.boolean_or("rope_traditional", true);
  shape.tied = false;  // whatever tie_word_embeddings says
  read_plain_rope(config, shape.rope, spec);
  shape.rope.dims = partial_dims(config, shape.head_dim);
  fill_standard(shape, spec);
  for (BlockSpec& block : spec.blocks) {
    const auto norm = [&](const char* name) {
      return NormSpec{block.path + name, shape.hidden, shape.eps};
    };
    block.attention_post = norm(".post_self_attn_layernorm");
    block.mlp_post = norm(".post_mlp_layernorm");
    fuse_gate_up(*block.mlp, block.path + ".mlp");
  }
  return spec;
}

}  // namespace pennyweight
