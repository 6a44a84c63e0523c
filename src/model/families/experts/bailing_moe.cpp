#include "core/json.h"
#include "model/families/moe.h"

namespace pennyweight {

namespace {

void fill_experts(const JsonView& config, bool bias, DecoderSpec& spec) {
  const auto counts = read_expert_counts(config, "num_experts");
  const auto wide = config.integer("moe_intermediate_size", 1, kMaxWidth);
  auto shared_wide =
      config.integer_or("moe_shared_expert_intermediate_size", 0, 0, kMaxWidth);
  shared_wide = shared_wide > 0 ? shared_wide : wide;
  const auto shared = config.boolean_or("moe_router_enable_shared_expert", true)
      ? config.integer("num_shared_experts", 0, 1 << 10)
      : 0;
  count_as_read(
      config,
      {"num_shared_experts",
       "moe_router_enable_routed_scaling",
       "score_function",
       "norm_topk_prob",
       "routed_scaling_factor",
       "n_group",
       "topk_group"});
  const bool corrected =
      config.boolean_or("moe_router_enable_expert_bias", false);
  const auto dense = config.integer("first_k_dense_replace", 0, kMaxLayers);
  for (BlockSpec& block : spec.blocks) {
    if (block.index < dense) {
      continue;
    }
    const std::string path = block.path + ".mlp";
    MoeSpec& moe = put_experts(
        {.counts = counts,
         .wide = wide,
         .shared = shared_wide * shared,
         .bias = bias,
         .shared_bias = bias,
         .names = {.router = "gate.gate_proj"}},
        block,
        spec);
    spec.sources[moe.router.path + ".weight"] =
        TensorSource{.name = path + ".gate.weight"};
    moe.router.converts_as = router_spec();
    // The class takes what is not the one for the other.
    moe.scores = config.string_or("score_function", "softmax") == "sigmoid"
        ? MoeSpec::Scores::sigmoid
        : MoeSpec::Scores::softmax;
    if (corrected) {
      correct_choice(path + ".gate.expert_bias", moe);
    }
    read_router_scale(config, moe);
  }
}

}  // namespace

// mlx_lm/models/bailing_moe.py: q, k and v in one matrix, names of its own.
DecoderSpec read_bailing_moe(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  if (config.boolean_or("norm_head", false)) {
    refuse_config(
        config,
        "norm_head, with which mlx-lm would scale the packed head anew each "
        "time that it loads it");
  }
  count_as_read(config, {"norm_softmax"});
  auto shape = read_standard_shape(
      input,
      {.plain_heads = true,
       .qkv_bias = "use_qkv_bias",
       .output_bias = "use_bias",
       .mlp_bias = "use_bias",
       .qk_norm = "use_qk_norm",
       .rope = RopeFact::own,
       .embedding_path = "model.word_embeddings"},
      spec);
  count_as_read(config, {"partial_rotary_factor"});
  shape.rope.dims = config.has("rotary_dim")
      ? static_cast<int>(config.integer("rotary_dim", 2, shape.head_dim))
      : partial_dims(config, shape.head_dim);
  read_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  for (BlockSpec& block : spec.blocks) {
    auto& attention = block.attention;
    const std::string path = block.path + ".attention";
    fuse_qkv(attention, path + ".query_key_value");
    attention.o.path = path + ".dense";
    if (shape.qk_norm) {
      attention.q_norm->path = path + ".query_layernorm";
      attention.k_norm->path = path + ".key_layernorm";
    }
  }
  fill_experts(config, shape.mlp_bias, spec);
  return spec;
}

}  // namespace pennyweight
