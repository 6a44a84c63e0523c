#include "model/families/family.h"
#include "model/families/standard.h"

namespace pennyweight {

// mlx_lm/models/qwen2.py
DecoderSpec read_qwen2(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  note_activation(config, spec);
  auto shape = read_standard_shape(config);
  shape.prefix = input.prefix;
  config.integer("num_key_value_heads", 1, shape.heads);
  use_plain_heads(shape, spec);
  shape.qkv_bias = true;
  shape.rope.traditional = config.boolean_or("rope_traditional", false);
  shape.tied = read_tied(input, spec);
  read_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  return spec;
}

}  // namespace pennyweight
