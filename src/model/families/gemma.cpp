#include <cmath>

#include "model/families/standard.h"

namespace pennyweight {

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
