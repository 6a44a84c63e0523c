// Families with DeepSeek's latent attention in blocks of their own.

#include <cmath>

#include "core/json.h"
#include "model/families/experts/latent.h"
#include "model/families/moe.h"

namespace pennyweight {

namespace {

// minicpm3's class uses the factors for long texts at every length.
void read_minicpm3_rope(
    const JsonView& config,
    RopeSpec& rope,
    DecoderSpec& spec) {
  const auto given = config.object("rope_scaling");
  if (!given) {
    refuse_config(
        config, "no rope_scaling, without which mlx-lm can't load this family");
  }
  Json scaling = {
      {"type", "longrope"},
      {"original_max_position_embeddings",
       given->number_or("original_max_position_embeddings", 4096)},
      {"short_factor", 1.0},
      {"long_factor", 1.0}};
  if (const Json* factors = given->find("long_factor")) {
    scaling["long_factor"] = *factors;
  }
  const int positions = read_positions(config);
  const std::string origin = config.origin() + ": rope_scaling";
  read_rope_scaling(JsonView(scaling, origin), positions, rope, spec.notes);
  rope.base = config.number("rope_theta");
  count_as_read(config, {"rope_traditional"});
}

}  // namespace

// mlx_lm/models/minicpm3.py: minicpm's multipliers; values as wide as a head
// would be without latents.
DecoderSpec read_minicpm3(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  auto shape = read_standard_shape(
      input, {.plain_heads = true, .rope = RopeFact::own}, spec);
  Json own = config.json();
  own["v_head_dim"] = shape.head_dim;
  config.integer("q_lora_rank", 1, 1 << 16);
  const auto latent = read_latent_shape(config.like(own));
  const bool bias = config.boolean_or("attention_bias", false);
  shape.rope.dims = latent.rope;
  read_minicpm3_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  const double depth = read_multiplier(config, "scale_depth");
  for (BlockSpec& block : spec.blocks) {
    fill_latent(latent, shape.hidden, bias, block, 1e-5f);
    block.residual_scale = static_cast<float>(depth / std::sqrt(shape.layers));
  }
  spec.embedding_scale = read_multiplier(config, "scale_emb");
  const float base = read_multiplier(config, "dim_model_base");
  if (spec.head) {  // the class does not scale what the embedding reads
    spec.logit_scale = base / static_cast<float>(shape.hidden);
  }
  return spec;
}

// mlx_lm/models/mistral4.py: queries grow with their position; a softmax
// routes.
DecoderSpec read_mistral4(const FamilyInput& input) {
  const JsonView& config = input.config;
  const auto growth = read_query_growth(config, 100000);
  Json own = growth.config;
  count_as_read(config, {"head_dim", "qk_head_dim"});
  own.erase("head_dim");
  auto spec = read_latent_deepseek(input.like(own));
  if (read_tied(input, spec)) {
    spec.head.reset();
  }
  const bool traditional = config.boolean_or("rope_interleave", true);
  for (BlockSpec& block : spec.blocks) {
    split_by_heads(block, spec);
    auto& attention = block.attention;
    attention.rope.traditional = traditional;
    attention.growth_beta = growth.beta;
    attention.growth_positions = growth.positions;
    if (!block.moe) {
      continue;
    }
    auto& moe = *block.moe;
    moe.normalize = config.boolean_or("norm_topk_prob", false);
    moe.scale =
        static_cast<float>(config.number_or("routed_scaling_factor", 1));
    read_groups(config, moe);
    const std::string path = block.path + ".mlp.experts.";
    if (!input.has_tensor(path.substr(input.prefix.size()) + "gate_up_proj")) {
      continue;
    }
    split_gate_up(
        moe.experts, {.name = path + "gate_up_proj"}, path + "down_proj", spec);
  }
  return spec;
}

// mlx_lm/models/youtu_llm.py: no experts, the config's eps throughout.
DecoderSpec read_youtu_llm(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  const auto latent = read_latent_shape(config);
  const bool bias = config.boolean_or("attention_bias", false);
  auto shape = read_standard_shape(
      input,
      {.mlp_bias = "mlp_bias",
       .traditional = {"rope_traditional", true},
       .rope = RopeFact::own},
      spec);
  shape.rope.dims = latent.rope;
  read_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  for (BlockSpec& block : spec.blocks) {
    fill_latent(latent, shape.hidden, bias, block, shape.eps);
  }
  return spec;
}

}  // namespace pennyweight
