#include "model/families/mixers/delta.h"

namespace pennyweight {

// mlx_lm/models/qwen3_next.py
DecoderSpec read_qwen3_next(const FamilyInput& input) {
  const JsonView& config = input.config;
  auto spec = read_standard(
      input,
      {.qkv_bias = "attention_bias",
       .output_bias = "attention_bias",
       .qk_norm = true,
       .part = 1});
  fill_delta_layers(config, true, spec);
  fill_delta_experts(config, false, spec);
  spec.mtp.push_back("*mtp.");
  // mlx-lm tells the hub's form by experts that stand one by one or in
  // transformers' stacks.
  for (const BlockSpec& block : spec.blocks) {
    if (input.has_tensor(block.path + ".mlp.experts.0.up_proj.weight") ||
        input.has_tensor(block.path + ".mlp.experts.gate_up_proj")) {
      add_delta_sources([](const std::string& name) { return name; }, spec);
      break;
    }
  }
  return spec;
}

}  // namespace pennyweight
