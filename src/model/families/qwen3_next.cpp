#include "core/error.h"
#include "model/config_keys.h"
#include "model/families/delta.h"

namespace pennyweight {

// mlx_lm/models/qwen3_next.py
DecoderSpec read_qwen3_next(const FamilyInput& input) {
  const JsonView& config = input.config;
  check_standard_config(config);
  check_config_keys(config, with_delta_keys({}));
  DecoderSpec spec;
  auto shape = read_standard_shape(config);
  shape.qkv_bias = config.boolean_or("attention_bias", false);
  shape.output_bias = shape.qkv_bias;
  shape.qk_norm = true;
  shape.tied = read_tied(input, false, spec);
  config.number("partial_rotary_factor");
  shape.rope.dims = partial_dims(config, shape.head_dim, 1);
  read_rope(config, {}, true, shape.rope, spec);
  fill_standard(shape, spec);
  fill_delta_layers(config, shape, true, spec);
  fill_delta_experts(
      config, shape.hidden, config.boolean_or("norm_topk_prob", false), spec);
  spec.dropped.push_back("mtp.");
  // As mlx-lm tells the hub's form: by experts that are not stacked yet.
  for (const BlockSpec& block : spec.blocks) {
    if (input.has_tensor(block.path + ".mlp.experts.0.up_proj.weight")) {
      add_delta_sources([](const std::string& name) { return name; }, spec);
      break;
    }
  }
  return spec;
}

}  // namespace pennyweight
