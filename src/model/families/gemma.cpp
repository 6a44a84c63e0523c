#include <cmath>

#include "model/families/standard.h"

namespace pennyweight {

// mlx_lm/models/gemma.py
DecoderSpec read_gemma(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  // Published configs say gelu, which transformers takes for the one with tanh.
  spec.notes.push_back(
      "the MLP's gelu is the exact one, as in mlx-lm; transformers computes "
      "the one with tanh, whatever hidden_act says");
  auto shape = read_standard_shape(config);
  shape.rope.traditional = config.boolean_or("rope_traditional", false);
  shape.tied = true;
  drop_head(input, spec);
  read_plain_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  spec.embedding_scale = std::sqrt(static_cast<float>(shape.hidden));
  spec.embedding_scale_in_type = true;
  for (BlockSpec& block : spec.blocks) {
    block.attention_norm->offset = 1;
    block.mlp_norm->offset = 1;
    block.mlp->activation = Activation::gelu_erf;
  }
  spec.final_norm.offset = 1;
  return spec;
}

void fill_gemma_blocks(
    const StandardShape& shape,
    double scalar,
    DecoderSpec& spec) {
  for (BlockSpec& block : spec.blocks) {
    const auto norm = [&](const char* name) {
      return NormSpec{block.path + name, shape.hidden, shape.eps, 1.0f};
    };
    block.attention_norm = norm(".input_layernorm");
    block.attention_post = norm(".post_attention_layernorm");
    block.mlp_norm = norm(".pre_feedforward_layernorm");
    block.mlp_post = norm(".post_feedforward_layernorm");
    block.attention.scale = static_cast<float>(1 / std::sqrt(scalar));
    block.mlp->activation = Activation::gelu;
  }
  spec.final_norm.offset = 1;
}

}  // namespace pennyweight
