// Families whose attention is gated by a matrix of its own, with norms before
// and behind each branch; and phimoe.

#include <cmath>

#include "core/json.h"
#include "model/families/moe.h"

namespace pennyweight {

namespace {

void add_gate(BlockSpec& block) {
  auto& attention = block.attention;
  attention.gate = LinearSpec{
      block.path + ".self_attn.gate_proj", attention.q.out, attention.q.in};
}

void add_afmoe_experts(const JsonView& config, DecoderSpec& spec) {
  const auto counts = read_expert_counts(config, "num_experts");
  const auto wide = config.integer("moe_intermediate_size", 1, kMaxWidth);
  const auto shared = config.integer_or("num_shared_experts", 1, 0, 1 << 10);
  const auto dense = config.integer_or("num_dense_layers", 2, 0, kMaxLayers);
  count_as_read(config, {"score_func", "route_norm", "route_scale", "n_group"});
  count_as_read(config, {"topk_group"});
  for (BlockSpec& block : spec.blocks) {
    if (block.index < dense) {
      continue;
    }
    MoeSpec& moe = put_experts(
        {.counts = counts,
         .wide = wide,
         .shared = wide * shared,
         .names = {.router = "router.gate", .stacks = "experts"}},
        block,
        spec);
    moe.router.converts_as = router_spec();
    // The class takes what is not the one for the other.
    moe.scores = config.string_or("score_func", "sigmoid") == "sigmoid"
        ? MoeSpec::Scores::sigmoid
        : MoeSpec::Scores::softmax;
    correct_choice(block.path + ".mlp.expert_bias", moe);
    read_router_scale(config, moe, "route_norm", "route_scale");
  }
}

struct MuseLayer {
  bool slides = false;
  bool rotates = false;
};

// By default three of four layers have a window (`slides`), and those have a
// rotary embedding (`rotates`), unless layer_rope_theta lists its base by
// layer.
std::vector<MuseLayer> read_muse_layers(const JsonView& config, int count) {
  Json types = Json::array();
  if (const Json* listed = find_layer_list(config, "layer_types", count)) {
    types = *listed;
  } else {
    for (int i = 0; i < count; ++i) {
      types.push_back(i % 4 == 3 ? "full_attention" : "sliding_attention");
    }
  }
  std::vector<double> bases;
  if (config.find("layer_rope_theta")) {
    bases = config.numbers("layer_rope_theta");
  }
  if (!bases.empty() && bases.size() != types.size()) {
    refuse_config(config, "\"layer_rope_theta\" is not one for each layer");
  }
  std::vector<MuseLayer> layers;
  for (size_t i = 0; i < types.size(); ++i) {
    // mlx-lm rotates layers of an unknown type, too, and gives them no window.
    const bool plain = types.at(i) != "full_attention";
    layers.push_back(
        {types.at(i) == "sliding_attention",
         bases.empty() ? plain : bases[i] != 0});
  }
  return layers;
}

void carry_muse_vision(const FamilyInput& input, DecoderSpec& spec) {
  for (const std::string part :
       {"vision_tower.", "vision_adapter.", "vision_projection."}) {
    carry_over(part, input.tensors_under(part).size(), spec);
  }
  const std::string wrapped =
      input.has_tensor("model.language_model.embed_tokens.weight")
      ? "model.language_model."
      : "language_model.model.";
  if (input.has_tensor(wrapped + "embed_tokens.weight")) {
    add_stored_names(
        [&](const std::string& name) -> std::string {
          if (name.starts_with("model.")) {
            return wrapped + name.substr(6);
          }
          return input.has_tensor("language_model." + name)
              ? "language_model." + name
              : name;
        },
        spec);
  }
}

}  // namespace

// mlx_lm/models/afmoe.py: windows and rotary embeddings on the same layers.
DecoderSpec read_afmoe(const FamilyInput& input) {
  const JsonView& config = input.config;
  auto spec = read_standard(input, {.qk_norm = true});
  const Json& types =
      layer_list(config, "layer_types", std::ssize(spec.blocks));
  require_full_attention(config, types);
  const int window = read_window(config, spec);
  for (BlockSpec& block : spec.blocks) {
    block.attention_post = block_norm(block, ".post_attention_layernorm", spec);
    block.mlp_norm = block_norm(block, ".pre_mlp_layernorm", spec);
    block.mlp_post = block_norm(block, ".post_mlp_layernorm", spec);
    add_gate(block);
    if (types.at(static_cast<size_t>(block.index)) == "sliding_attention") {
      block.attention.window = window;
    } else {
      block.attention.rope.dims = 0;
    }
  }
  if (config.boolean_or("mup_enabled", true)) {
    spec.embedding_scale =
        static_cast<float>(std::sqrt(static_cast<double>(spec.hidden)));
  }
  add_afmoe_experts(config, spec);
  return spec;
}

// mlx_lm/models/phimoe.py: layer norms, biases, a sparse mixer.
DecoderSpec read_phimoe(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  auto shape = read_standard_shape(
      input,
      {.plain_heads = true,
       .qkv_bias = true,
       .output_bias = true,
       .head = HeadFact::own,
       .rope = RopeFact::own},
      spec);
  shape.rope.base = config.number("rope_theta");
  count_as_read(config, {"original_max_position_embeddings"});
  const int positions = read_positions(config, 131072);
  if (const auto given = config.object("rope_scaling")) {
    Json scaling = given->json();
    scaling["type"] = "longrope";
    scaling["original_max_position_embeddings"] = config.integer_or(
        "original_max_position_embeddings", 4096, 1, int64_t{1} << 30);
    shape.rope.long_mscale = read_multiplier(*given, "long_mscale");
    read_multiplier(*given, "short_mscale");
    const std::string origin = config.origin() + ": rope_scaling";
    read_rope_scaling(
        JsonView(scaling, origin), positions, shape.rope, spec.notes);
  }
  fill_standard(shape, spec);
  const auto counts = read_expert_counts(config, "num_local_experts");
  use_layer_norms(spec, true);
  for (BlockSpec& block : spec.blocks) {
    MoeSpec& moe = put_experts(
        {.counts = counts,
         .path = ".block_sparse_moe",
         .names = {"w1", "w3", "w2"}},
        block,
        spec);
    moe.scores = MoeSpec::Scores::sparse_mixer;
    moe.jitter =
        static_cast<float>(config.number_or("router_jitter_noise", 0.01));
  }
  spec.head->bias = true;
  return spec;
}

// mlx_lm/models/muse_glimmer.py: heads and embeddings are normed without
// weights; norms around the branches add 1 to theirs.
DecoderSpec read_muse_glimmer(const FamilyInput& input) {
  const JsonView& config = input.config;
  if (config.find("text_config")) {
    refuse_config(
        config,
        "the language model's keys stand in text_config: move them to the top, "
        "where mlx-lm's class has them, too");
  }
  DecoderSpec spec;
  auto shape = read_standard_shape(
      input,
      {.activation_key = "hidden_activation", .rope = RopeFact::plain},
      spec);
  if (const auto parameters = config.object("rope_parameters")) {
    shape.rope.base = parameters->number_or("rope_theta", shape.rope.base);
  }
  const auto layers = read_muse_layers(config, shape.layers);
  const int window = read_window(config, spec);
  const double post_eps = config.number_or("post_norm_eps", 1e-8);
  fill_standard(shape, spec);
  for (BlockSpec& block : spec.blocks) {
    const auto at = static_cast<size_t>(block.index);
    const auto post_norm = [&](const char* name) {
      auto norm = block_norm(block, name, spec, 1);
      norm.eps = static_cast<float>(post_eps);
      return norm;
    };
    block.attention_norm = block_norm(block, ".input_layernorm", spec, 1);
    block.attention_post = post_norm(".post_attention_layernorm");
    block.mlp_norm = block_norm(block, ".pre_feedforward_layernorm", spec, 1);
    block.mlp_post = post_norm(".post_feedforward_layernorm");
    auto& attention = block.attention;
    NormSpec bare{block.path + ".self_attn.q_norm", shape.head_dim, shape.eps};
    bare.bare = true;
    attention.q_norm = bare;
    bare.path = block.path + ".self_attn.k_norm";
    attention.k_norm = bare;
    attention.scale *= read_multiplier(config, "qk_scale_factor");
    add_gate(block);
    attention.window = layers[at].slides ? window : 0;
    if (!layers[at].rotates) {
      attention.rope.dims = 0;
    }
  }
  spec.embedding_eps = shape.eps;
  spec.logit_scale = read_multiplier(config, "output_multiplier");
  spec.logit_cap = read_multiplier(config, "final_logit_softcapping");
  carry_muse_vision(input, spec);
  return spec;
}

}  // namespace pennyweight
