#include "core/error.h"
#include "model/families/moe.h"

namespace pennyweight {

namespace {

// Refuses scalings with which the class can't be loaded: all but a linear one,
// which it does not use.
void check_scaling(const JsonView& config) {
  const auto scaling = config.object("rope_scaling");
  if (scaling && !scaling->json().empty() &&
      (scaling->string_or("type", "") != "linear" || !scaling->has("factor"))) {
    throw not_supported_error(
        "model",
        config.origin() +
            ": rope_scaling is not linear, without which mlx-lm can't load "
            "this family; remove it, since mlx-lm makes nothing of it");
  }
}

}  // namespace

// mlx_lm/models/qwen2_moe.py: every layer has experts, whose scores are never
// made to add up to 1, and a shared one behind a gate of its own.
DecoderSpec read_qwen2_moe(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  note_activation(config, spec);
  auto shape = read_standard_shape(config);
  use_plain_heads(shape, spec);
  shape.qkv_bias = true;
  shape.rope.traditional = config.boolean_or("rope_traditional", false);
  count_as_read(config, {"tie_word_embeddings"});  // it never ties
  check_scaling(config);
  read_plain_rope(config, shape.rope, spec);
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
