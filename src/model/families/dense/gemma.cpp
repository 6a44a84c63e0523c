#include <cmath>

#include "model/families/standard.h"

namespace pennyweight {

// mlx_lm/models/gemma.py
DecoderSpec read_gemma(const FamilyInput& input) {
  auto spec = read_standard(
      input,
      {.activation = nullptr,
       .head = HeadFact::dropped,
       .traditional = "rope_traditional",
       .rope = RopeFact::plain});
  // Published configs say gelu, which transformers takes for the one with tanh.
  spec.notes.insert(
      spec.notes.begin(),
      "the MLP's gelu is the exact one, as in mlx-lm; transformers computes "
      "the one with tanh, whatever hidden_act says");
  spec.embedding_scale = std::sqrt(static_cast<float>(spec.hidden));
  spec.embedding_scale_in_type = true;
  for (BlockSpec& block : spec.blocks) {
    block.attention_norm->offset = 1;
    block.mlp_norm->offset = 1;
    block.mlp->activation = Activation::gelu_erf;
  }
  spec.final_norm.offset = 1;
  return spec;
}

void fill_gemma_blocks(double scalar, DecoderSpec& spec) {
  for (BlockSpec& block : spec.blocks) {
    const auto norm = [&](const char* name) {
      return block_norm(block, name, spec, 1);
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

// mlx_lm/models/gemma2.py: norms that add 1 before and behind, and capped
// scores and logits. It knows no sliding windows.
DecoderSpec read_gemma2(const FamilyInput& input) {
  const JsonView& config = input.config;
  auto spec = read_standard(
      input,
      {.activation = "gelu_pytorch_tanh",
       .activation_key = "hidden_activation",
       .head = HeadFact::dropped,
       .traditional = "rope_traditional",
       .rope = RopeFact::plain});
  spec.embedding_scale =
      static_cast<float>(std::sqrt(static_cast<double>(spec.hidden)));
  spec.logit_cap = read_multiplier(config, "final_logit_softcapping");
  fill_gemma_blocks(read_multiplier(config, "query_pre_attn_scalar"), spec);
  for (BlockSpec& block : spec.blocks) {
    block.attention.cap = read_multiplier(config, "attn_logit_softcapping");
  }
  return spec;
}

}  // namespace pennyweight
