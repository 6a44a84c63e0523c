// Families whose attention is gated by a matrix of its own, with norms before
// and behind each branch; and phimoe.

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/json.h"
#include "model/families/moe.h"

namespace pennyweight {

namespace {

void add_gate(BlockSpec& block) {
  auto& attention = block.attention;
  attention.gate = LinearSpec{
      block.path + ".self_attn.gate_proj", attention.q.out, attention.q.in};
}

// Whether each layer has a window, as layer_types says.
std::vector<bool>
read_sliding(const JsonView& config, const Json& types, int layers) {
  if (!types.is_array() || types.size() != static_cast<size_t>(layers)) {
    throw corrupt_error(
        "model",
        config.origin() + ": \"layer_types\" must name " +
            std::to_string(layers) + " layers");
  }
  std::vector<bool> slides;
  for (const Json& type : types) {
    slides.push_back(type == "sliding_attention");
  }
  return slides;
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
    const std::string path = block.path + ".mlp";
    block.mlp.reset();
    block.moe = standard_moe(
        path,
        spec.hidden,
        wide,
        counts,
        spec,
        {.router = "router.gate", .stacks = "experts"});
    MoeSpec& moe = *block.moe;
    moe.router.converts_as = make_quant_spec("affine", 8, 64);
    // The class takes what is not the one for the other.
    moe.scores = config.string_or("score_func", "sigmoid") == "sigmoid"
        ? MoeSpec::Scores::sigmoid
        : MoeSpec::Scores::softmax;
    moe.correction =
        ParameterSpec{path + ".expert_bias", {int64_t{moe.count}}, true};
    moe.normalize = moe.chosen > 1 && config.boolean_or("route_norm", true);
    moe.scale = static_cast<float>(config.number_or("route_scale", 1));
    read_groups(config, moe);
    if (shared > 0) {
      block.mlp =
          standard_mlp(path + ".shared_experts", spec.hidden, wide * shared);
    }
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
  if (const Json* listed = config.find("layer_types")) {
    types = *listed;
  } else {
    for (int i = 0; i < count; ++i) {
      types.push_back(i % 4 == 3 ? "full_attention" : "sliding_attention");
    }
  }
  const auto slides = read_sliding(config, types, count);
  std::vector<double> bases;
  if (config.find("layer_rope_theta")) {
    bases = config.numbers("layer_rope_theta");
  }
  if (!bases.empty() && bases.size() != slides.size()) {
    refuse_config(config, "\"layer_rope_theta\" is not one for each layer");
  }
  std::vector<MuseLayer> layers;
  for (size_t i = 0; i < slides.size(); ++i) {
    // mlx-lm rotates layers of an unknown type, too, and gives them no window.
    const bool plain = types.at(i) != "full_attention";
    layers.push_back({slides[i], bases.empty() ? plain : bases[i] != 0});
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
  DecoderSpec spec;
  note_activation(config, spec);
  auto shape = read_standard_shape(config);
  shape.qk_norm = true;
  shape.tied = read_tied(input, spec);
  read_rope(config, shape.rope, spec);
  const Json* types = config.find("layer_types");
  const auto slides =
      read_sliding(config, types ? *types : Json(), shape.layers);
  if (std::ranges::find(*types, Json("full_attention")) == types->end()) {
    refuse_config(
        config,
        "no layer is of type full_attention, without which mlx-lm can't load "
        "this family");
  }
  const int window = read_window(config, spec);
  fill_standard(shape, spec);
  for (BlockSpec& block : spec.blocks) {
    const auto norm = [&](const char* name) {
      return NormSpec{block.path + name, shape.hidden, shape.eps};
    };
    block.attention_post = norm(".post_attention_layernorm");
    block.mlp_norm = norm(".pre_mlp_layernorm");
    block.mlp_post = norm(".post_mlp_layernorm");
    add_gate(block);
    if (slides[static_cast<size_t>(block.index)]) {
      block.attention.window = window;
    } else {
      block.attention.rope.dims = 0;
    }
  }
  if (config.boolean_or("mup_enabled", true)) {
    spec.embedding_scale =
        static_cast<float>(std::sqrt(static_cast<double>(shape.hidden)));
  }
  add_afmoe_experts(config, spec);
  return spec;
}

// mlx_lm/models/phimoe.py: layer norms, biases, a sparse mixer.
DecoderSpec read_phimoe(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  note_activation(config, spec);
  auto shape = read_standard_shape(config);
  use_plain_heads(shape, spec);
  shape.qkv_bias = true;
  shape.output_bias = true;
  shape.tied = false;
  shape.rope.base = config.number("rope_theta");
  count_as_read(config, {"original_max_position_embeddings"});
  const auto positions = static_cast<int>(config.integer_or(
      "max_position_embeddings", 131072, 1, int64_t{1} << 30));
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
  const auto layer_norm = [](NormSpec& norm) {
    norm.centered = true;
    norm.bias = true;
  };
  for (BlockSpec& block : spec.blocks) {
    layer_norm(*block.attention_norm);
    layer_norm(*block.mlp_norm);
    block.mlp.reset();
    block.moe = standard_moe(
        block.path + ".block_sparse_moe",
        shape.hidden,
        shape.intermediate,
        counts,
        spec,
        {"w1", "w3", "w2"});
    block.moe->scores = MoeSpec::Scores::sparse_mixer;
    block.moe->jitter =
        static_cast<float>(config.number_or("router_jitter_noise", 0.01));
  }
  layer_norm(spec.final_norm);
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
  note_activation(config, spec, "silu", "hidden_activation");
  auto shape = read_standard_shape(config);
  shape.tied = read_tied(input, spec);
  read_plain_rope(config, shape.rope, spec);
  if (const auto parameters = config.object("rope_parameters")) {
    shape.rope.base = parameters->number_or("rope_theta", shape.rope.base);
  }
  const auto layers = read_muse_layers(config, shape.layers);
  const int window = read_window(config, spec);
  const double post_eps = config.number_or("post_norm_eps", 1e-8);
  fill_standard(shape, spec);
  for (BlockSpec& block : spec.blocks) {
    const auto at = static_cast<size_t>(block.index);
    const auto norm = [&](const char* name, double eps) {
      return NormSpec{
          block.path + name, shape.hidden, static_cast<float>(eps), 1.0f};
    };
    block.attention_norm = norm(".input_layernorm", shape.eps);
    block.attention_post = norm(".post_attention_layernorm", post_eps);
    block.mlp_norm = norm(".pre_feedforward_layernorm", shape.eps);
    block.mlp_post = norm(".post_feedforward_layernorm", post_eps);
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
