#include "model/config_keys.h"
#include "model/families/family.h"
#include "model/families/standard.h"

namespace pennyweight {

// mlx_lm/models/qwen2.py
DecoderSpec read_qwen2(const FamilyInput& input) {
  const JsonView& config = input.config;
  check_standard_config(config);
  check_config_keys(
      config,
      with_standard_keys(
          {"rope_traditional",
           "layer_types",
           "sliding_window",
           "use_sliding_window"}));
  DecoderSpec spec;
  auto shape = read_standard_shape(config);
  config.integer("num_key_value_heads", 1, shape.heads);
  require_plain_heads(config, shape);
  shape.qkv_bias = true;
  shape.rope.traditional = config.boolean_or("rope_traditional", false);
  shape.tied = read_tied(input, true, spec);
  note_unused_windows(config, spec);
  read_rope(config, 1000000, true, shape.rope, spec);
  fill_standard(shape, spec);
  return spec;
}

}  // namespace pennyweight
