#include "core/error.h"
#include "model/config_keys.h"
#include "model/families/moe.h"

namespace pennyweight {

// mlx_lm/models/qwen2_moe.py: every layer has experts, whose scores are never
// made to add up to 1, and a shared one behind a gate of its own.
DecoderSpec read_qwen2_moe(const FamilyInput& input) {
  const JsonView& config = input.config;
  check_standard_config(config);
  check_config_keys(
      config,
      with_standard_keys(
          {"num_experts",
           "num_experts_per_tok",
           "moe_intermediate_size",
           "shared_expert_intermediate_size",
           "decoder_sparse_step",
           "mlp_only_layers",
           "norm_topk_prob",
           "rope_traditional",
           "qkv_bias",
           "layer_types",
           "sliding_window",
           "use_sliding_window"}));
  const Json* dense = config.find("mlp_only_layers");
  if (config.integer_or("decoder_sparse_step", 1, 0, 1 << 20) > 1 ||
      (dense && !dense->empty())) {
    throw Error(
        ErrorCode::not_supported,
        "model",
        config.origin() +
            ": layers without experts (decoder_sparse_step, mlp_only_layers), "
            "which mlx-lm does not read for this family");
  }
  DecoderSpec spec;
  if (config.boolean_or("norm_topk_prob", false)) {
    spec.notes.push_back(
        "norm_topk_prob is not read, as in mlx-lm: the scores of the chosen "
        "experts are not made to add up to 1");
  }
  auto shape = read_standard_shape(config);
  require_plain_heads(config, shape);
  shape.qkv_bias = true;
  shape.rope.traditional = config.boolean_or("rope_traditional", false);
  note_unused_windows(config, spec);
  read_rope(config, 1000000, true, shape.rope, spec);
  refuse_rope_scaling(config, shape.rope);
  fill_standard(shape, spec);
  const auto counts = read_expert_counts(config, "num_experts");
  const auto wide = config.integer("moe_intermediate_size", 1, kMaxWidth);
  const auto shared =
      config.integer("shared_expert_intermediate_size", 1, kMaxWidth);
  for (BlockSpec& block : spec.blocks) {
    const std::string path = block.path + ".mlp";
    block.moe = standard_moe(path, shape.hidden, wide, counts, spec);
    block.moe->shared_gate = LinearSpec{
        .path = path + ".shared_expert_gate", .out = 1, .in = shape.hidden};
    block.mlp = standard_mlp(path + ".shared_expert", shape.hidden, shared);
  }
  return spec;
}

}  // namespace pennyweight
