#include "model/families/moe.h"

namespace pennyweight {

// mlx_lm/models/olmoe.py: queries and keys are normed over all heads together.
DecoderSpec read_olmoe(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  note_activation(config, spec);
  auto shape = read_standard_shape(config);
  shape.qkv_bias = config.boolean_or("attention_bias", false);
  shape.output_bias = shape.qkv_bias;
  shape.qk_norm = true;
  shape.rope.traditional = config.boolean_or("rope_traditional", false);
  shape.tied = read_tied(input, spec);
  read_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  const auto counts = read_expert_counts(config, "num_experts");
  const bool bias = config.boolean_or("mlp_bias", false);
  for (BlockSpec& block : spec.blocks) {
    block.attention.q_norm->size = block.attention.q.out;
    block.attention.k_norm->size = block.attention.k.out;
    block.mlp.reset();
    block.moe = standard_moe(
        block.path + ".mlp", shape.hidden, shape.intermediate, counts, spec);
    block.moe->normalize = config.boolean_or("norm_topk_prob", false);
    set_expert_biases(*block.moe, bias);
  }
  return spec;
}

}  // namespace pennyweight
