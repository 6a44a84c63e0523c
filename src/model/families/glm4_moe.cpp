#include "core/error.h"
#include "model/families/moe.h"

namespace pennyweight {

// mlx_lm/models/glm4_moe.py
DecoderSpec read_glm4_moe(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  note_activation(config, spec);
  auto shape = read_standard_shape(config);
  shape.qkv_bias = config.boolean_or("attention_bias", false);
  shape.qk_norm = config.boolean_or("use_qk_norm", false);
  count_as_read(
      config,
      {"tie_word_embeddings",
       "n_group",
       "topk_group",
       "norm_topk_prob",
       "routed_scaling_factor",
       "scoring_func",
       "topk_method"});
  shape.tied = false;  // whatever tie_word_embeddings says
  read_plain_rope(config, shape.rope, spec);
  shape.rope.dims = partial_dims(config, shape.head_dim);
  fill_standard(shape, spec);
  const auto counts = read_expert_counts(config, "n_routed_experts");
  const auto wide = config.integer("moe_intermediate_size", 1, kMaxWidth);
  const auto shared = config.integer_or("n_shared_experts", 0, 0, 1 << 10);
  const auto dense = config.integer("first_k_dense_replace", 0, kMaxLayers);
  for (BlockSpec& block : spec.blocks) {
    if (block.index < dense) {
      continue;
    }
    const std::string path = block.path + ".mlp";
    block.mlp.reset();
    block.moe = standard_moe(path, shape.hidden, wide, counts, spec);
    read_corrected_router(config, path, *block.moe);
    if (shared > 0) {
      block.mlp =
          standard_mlp(path + ".shared_experts", shape.hidden, wide * shared);
    }
  }
  // The layer that predicts further tokens.
  spec.mtp.push_back("model.layers." + std::to_string(shape.layers) + ".");
  return spec;
}

}  // namespace pennyweight
