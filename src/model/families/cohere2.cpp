#include "core/error.h"
#include "model/families/standard.h"

namespace pennyweight {

// mlx_lm/models/cohere2.py: attention and MLP side by side behind one layer
// norm; rope on the layers with a window alone.
DecoderSpec read_cohere2(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  note_activation(config, spec);
  auto shape = read_standard_shape(config, "layer_norm_eps");
  if (shape.head_dim * int64_t{shape.heads} != shape.hidden) {
    throw not_supported_error(
        "model",
        config.origin() +
            ": head_dim * num_attention_heads is not hidden_size, without "
            "which mlx-lm can't load this family");
  }
  shape.qkv_bias = config.boolean_or("attention_bias", false);
  shape.output_bias = shape.qkv_bias;
  shape.rope.traditional = true;
  shape.tied = true;
  drop_head(input, spec);
  read_plain_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  const bool bias = config.boolean_or("layer_norm_bias", false);
  const int window = read_window(config, spec);
  const auto pattern = config.integer("sliding_window_pattern", 1, 1 << 20);
  for (BlockSpec& block : spec.blocks) {
    block.parallel = true;
    block.attention.wide_scores = true;
    block.attention_norm->centered = true;
    block.attention_norm->bias = bias;
    block.mlp_norm.reset();
    if ((block.index + 1) % pattern == 0) {
      block.attention.rope.dims = 0;
    } else {
      block.attention.window = window;
    }
  }
  spec.final_norm.centered = true;
  spec.final_norm.bias = bias;
  spec.logit_scale = read_multiplier(config, "logit_scale");
  return spec;
}

}  // namespace pennyweight
