#include <cmath>

#include "kernels/types.h"
#include "model/families/standard.h"

namespace pennyweight {

namespace {

// mlx-lm rounds the scale to bfloat16.
float embedding_scale(int64_t hidden) {
  kernels::BFloat16 scale;
  kernels::from_float(
      static_cast<float>(std::sqrt(static_cast<double>(hidden))), scale);
  return kernels::to_float(scale);
}

}  // namespace

// mlx_lm/models/gemma3_text.py
DecoderSpec read_gemma3_text(const FamilyInput& input) {
  const JsonView& config = input.config;
  auto spec = read_standard(
      input,
      {.activation = "gelu_pytorch_tanh",
       .activation_key = "hidden_activation",
       .qk_norm = true,
       .head = HeadFact::own});
  if (!input.has_tensor("lm_head.weight")) {
    spec.head.reset();
  }
  const int window = read_window(config, spec);
  const auto pattern =
      static_cast<int>(config.integer("sliding_window_pattern", 1, 1 << 20));
  if (pattern > std::ssize(spec.blocks)) {
    refuse_config(
        config,
        "no layer has full attention (sliding_window_pattern, layer_types), "
        "without which mlx-lm can't run this family");
  }
  spec.embedding_scale = embedding_scale(spec.hidden);
  RopeSpec local;
  local.dims = spec.blocks.front().attention.head_dim;
  local.base = config.number("rope_local_base_freq");
  fill_gemma_blocks(config.number("query_pre_attn_scalar"), spec);
  for (BlockSpec& block : spec.blocks) {
    block.clips_residual = true;
    block.attention.q_norm->offset = 1;
    block.attention.k_norm->offset = 1;
    if ((block.index + 1) % pattern != 0) {
      block.attention.rope = local;
      block.attention.window = window;
    }
  }
  return spec;
}

}  // namespace pennyweight
