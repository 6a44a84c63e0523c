// Families whose layers differ: in windows and rotary embeddings, by layer
// type; in the number of heads or the width of the MLP; or in having experts.

#include <algorithm>

#include "core/error.h"
#include "core/json.h"
#include "model/config/class_config.h"
#include "model/families/moe.h"

namespace pennyweight {

namespace {

// Reads the rotary embedding of a layer type, of which rope_parameters has an
// object each. With `scales_linearly` false the class ignores a linear scaling.
RopeSpec read_rope_of(
    const JsonView& config,
    const std::string& type,
    int head_dim,
    bool scales_linearly,
    DecoderSpec& spec) {
  const auto all = config.object("rope_parameters");
  const auto own = all ? all->object(type) : std::nullopt;
  if (!own) {
    throw wrong_config(
        config, "rope_parameters has none for \"" + one_line(type, 40) + "\"");
  }
  RopeSpec rope;
  rope.base = check_rope_base(*own, own->number_or("rope_theta", 10000));
  rope.dims = scales_linearly
      ? partial_dims(
            *own, head_dim, config.number_or("partial_rotary_factor", 1))
      : head_dim;
  Json scaling = own->json();
  scaling.erase("rope_theta");
  const int positions = read_positions(config);
  const JsonView view(scaling, own->origin());
  const bool linear = own->string_or("rope_type", "") == "linear";
  if (is_scaled(view) && (scales_linearly || !linear)) {
    read_rope_scaling(view, positions, rope, spec.notes);
  } else if (linear) {
    spec.notes.push_back(
        "rope_parameters of type linear are not used, as in mlx-lm");
  }
  return rope;
}

void set_heads(BlockSpec& block, int heads) {
  auto& attention = block.attention;
  attention.heads = heads;
  attention.q.out = int64_t{heads} * attention.head_dim;
  attention.o.in = attention.q.out;
}

// A number for each layer, in [1, limit].
std::vector<double> layer_numbers(
    const JsonView& config,
    const char* key,
    int layers,
    double limit) {
  layer_list(config, key, layers);
  auto numbers = config.numbers(key);
  for (double number : numbers) {
    if (!(number > 0) || number > limit) {
      throw wrong_config(
          config, "\"" + std::string(key) + "\" is out of range");
    }
  }
  return numbers;
}

// The multiple of `divisor` nearest to `wanted`, or the next one where that is
// more than a tenth smaller.
int64_t divisible(double wanted, int64_t divisor) {
  const auto steps =
      static_cast<int64_t>(wanted + double(divisor) / 2) / divisor;
  const auto width = std::max(divisor, steps * divisor);
  return double(width) < 0.9 * wanted ? width + divisor : width;
}

std::vector<std::string> laguna_types(const JsonView& config, int layers) {
  std::vector<std::string> types(static_cast<size_t>(layers), "full_attention");
  if (config.find("layer_types")) {
    const Json& list = layer_list(config, "layer_types", layers);
    std::ranges::transform(list, types.begin(), [](const Json& type) {
      return type.is_string() ? type.get<std::string>() : "";
    });
  }
  require_full_attention(config, types);
  return types;
}

void add_laguna_experts(const JsonView& config, DecoderSpec& spec) {
  count_as_read(config, {"moe_routed_scaling_factor"});
  if (config.number_or("moe_router_logit_softcapping", 0) > 0 ||
      config.string_or("moe_router_score_func", "sigmoid") != "sigmoid") {
    refuse_config(
        config,
        "moe_router_logit_softcapping and a moe_router_score_func other than "
        "sigmoid are not supported");
  }
  const auto counts = read_expert_counts(config, "num_experts");
  const auto wide = config.integer("moe_intermediate_size", 1, kMaxWidth);
  const auto shared =
      config.integer("shared_expert_intermediate_size", 1, kMaxWidth);
  const bool listed = config.find("mlp_layer_types");
  const auto layers = static_cast<int>(spec.blocks.size());
  for (BlockSpec& block : spec.blocks) {
    const bool sparse = listed
        ? layer_list(config, "mlp_layer_types", layers)
                .at(static_cast<size_t>(block.index)) == "sparse"
        : block.index > 0;
    if (!sparse) {
      continue;
    }
    const std::string path = block.path + ".mlp";
    MoeSpec& moe = put_experts(
        {.counts = counts,
         .wide = wide,
         .shared = shared,
         .shared_path = ".shared_expert",
         .names = {.router = "gate.proj"}},
        block,
        spec);
    spec.sources[moe.router.path + ".weight"] =
        TensorSource{.name = path + ".gate.weight"};
    moe.router.converts_as = router_spec();
    moe.scores = MoeSpec::Scores::sigmoid;
    correct_choice(path + ".gate.e_score_correction_bias", moe);
    spec.sources[moe.correction->name] =
        TensorSource{.name = path + ".experts.e_score_correction_bias"};
    moe.normalize = true;
    moe.scale =
        static_cast<float>(config.number_or("moe_routed_scaling_factor", 1));
  }
}

void add_exaone_experts(const JsonView& config, DecoderSpec& spec) {
  const Json sparse =
      layer_list(config, "is_moe_layer", static_cast<int>(spec.blocks.size()));
  const auto counts = read_expert_counts(config, "num_experts");
  const auto wide = config.integer("moe_intermediate_size", 1, kMaxWidth);
  const auto shared = config.integer_or("num_shared_experts", 0, 0, 1 << 10);
  count_as_read(
      config,
      {"n_group",
       "topk_group",
       "norm_topk_prob",
       "routed_scaling_factor",
       "scoring_func",
       "topk_method"});
  for (BlockSpec& block : spec.blocks) {
    if (sparse.at(static_cast<size_t>(block.index)) != true) {
      continue;
    }
    const std::string path = block.path + ".mlp";
    MoeSpec& moe = put_experts(
        {.counts = counts, .wide = wide, .shared = wide * shared}, block, spec);
    read_corrected_router(config, path, moe);
    spec.sources[moe.correction->name] =
        TensorSource{.name = path + ".e_score_correction_bias"};
  }
}

}  // namespace

// mlx_lm/models/exaone_moe.py: windows and rotary embeddings on the same
// layers, DeepSeek-V3's router.
DecoderSpec read_exaone_moe(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  auto shape = read_standard_shape(
      input, {.qk_norm = true, .rope = RopeFact::own}, spec);
  Json own = config.json();
  if (const auto parameters = config.object("rope_parameters");
      parameters && parameters->has("rope_theta")) {
    own["rope_theta"] = parameters->number("rope_theta");
    if (is_scaled(*parameters) && !has_key(*input.given, "rope_scaling")) {
      spec.notes.push_back(
          "rope_parameters' scaling is not used, as in mlx-lm, whose class "
          "takes rope_theta alone from them");
    }
  }
  // The class reads a rope_scaling that stands beside rope_parameters.
  own["rope_scaling"] = input.given->value("rope_scaling", Json());
  count_as_read(config, {"rope_scaling"});
  read_rope(config.like(own), shape.rope, spec);
  const int window = read_window(config, spec);
  const Json types = layer_list(config, "layer_types", shape.layers);
  const bool any =
      std::ranges::find(types, Json("sliding_attention")) != types.end();
  fill_standard(shape, spec);
  for (BlockSpec& block : spec.blocks) {
    if (types.at(static_cast<size_t>(block.index)) == "sliding_attention") {
      block.attention.window = window;
    } else if (any) {
      block.attention.rope.dims = 0;
    }
  }
  add_exaone_experts(config, spec);
  spec.mtp.push_back("mtp.");
  return spec;
}

// mlx_lm/models/laguna.py: a gate for each head, and as many heads as the
// layer has.
DecoderSpec read_laguna(const FamilyInput& input) {
  const JsonView& config = input.config;
  auto spec = read_standard(
      input,
      {.qkv_bias = "qkv_bias",
       .output_bias = "attention_bias",
       .qk_norm = true,
       .rope = RopeFact::own});
  const auto layers = static_cast<int>(spec.blocks.size());
  count_as_read(
      config, {"rope_parameters", "partial_rotary_factor", "sliding_window"});
  const auto types = laguna_types(config, layers);
  const bool slides = std::ranges::count(types, "sliding_attention") > 0;
  const int window = slides ? read_window(config, spec) : 0;
  const Json* gating = config.find("gating");
  const bool gated = !gating || *gating != false;
  std::vector<double> heads(types.size(), spec.blocks.front().attention.heads);
  if (config.find("num_attention_heads_per_layer")) {
    heads =
        layer_numbers(config, "num_attention_heads_per_layer", layers, 1 << 16);
  }
  for (BlockSpec& block : spec.blocks) {
    const auto at = static_cast<size_t>(block.index);
    auto& attention = block.attention;
    set_heads(block, static_cast<int>(heads[at]));
    if (attention.heads < 1 || attention.heads % attention.kv_heads != 0) {
      refuse_config(
          config, "\"num_attention_heads_per_layer\" is out of range");
    }
    if (gated) {
      attention.gate = LinearSpec{
          block.path + ".self_attn.g_proj", attention.heads, spec.hidden};
      attention.softplus_gate = true;
    }
    attention.rope =
        read_rope_of(config, types[at], attention.head_dim, true, spec);
    attention.window = types[at] == "sliding_attention" ? window : 0;
  }
  add_laguna_experts(config, spec);
  return spec;
}

// mlx_lm/models/openelm.py: as many heads and as wide an MLP as the layer has.
DecoderSpec read_openelm(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  const auto layers =
      static_cast<int>(config.integer("num_transformer_layers", 1, kMaxLayers));
  const auto heads = layer_numbers(config, "num_query_heads", layers, 1 << 16);
  const auto kv_heads = layer_numbers(config, "num_kv_heads", layers, 1 << 16);
  const auto wider = layer_numbers(config, "ffn_multipliers", layers, 64);
  const auto divisor = config.integer("ffn_dim_divisor", 1, 1 << 16);
  Json own = config.json();
  own["hidden_size"] = config.integer("model_dim", 1, kMaxWidth / 64);
  own["num_hidden_layers"] = layers;
  own["num_attention_heads"] = 1;
  own["num_key_value_heads"] = 1;
  own["intermediate_size"] = 1;
  own["rope_theta"] = config.number("rope_freq_constant");
  count_as_read(config, {"ffn_with_glu"});
  const auto like = input.like(own);
  auto shape = read_standard_shape(
      like,
      {.activation = "swish",
       .activation_key = "activation_fn_name",
       .qk_norm = {"normalize_qk_projections", true},
       .head = HeadFact::own,
       .rope = RopeFact::own,
       .embedding_path = "transformer.token_embeddings",
       .final_norm_path = "transformer.norm"},
      spec);
  shape.tied = config.boolean_or("share_input_output_layers", true);
  if (shape.tied) {
    drop_head(input, spec);
  }
  read_plain_rope(like.config, shape.rope, spec);
  fill_standard(shape, spec);
  for (BlockSpec& block : spec.blocks) {
    const auto at = static_cast<size_t>(block.index);
    block.path = "transformer.layers." + std::to_string(block.index);
    block.attention_norm->path = block.path + ".attn_norm";
    block.mlp_norm->path = block.path + ".ffn_norm";
    auto& attention = block.attention;
    const std::string path = block.path + ".attn.";
    attention.kv_heads = static_cast<int>(kv_heads[at]);
    set_heads(block, static_cast<int>(heads[at]));
    if (attention.heads % attention.kv_heads != 0) {
      refuse_config(
          config, "\"num_query_heads\" are no multiple of \"num_kv_heads\"");
    }
    attention.k.out = int64_t{attention.kv_heads} * attention.head_dim;
    attention.v.out = attention.k.out;
    fuse_qkv(attention, path + "qkv_proj");
    attention.o.path = path + "out_proj";
    if (shape.qk_norm) {
      attention.q_norm->path = path + "q_norm";
      attention.k_norm->path = path + "k_norm";
    }
    const auto wide = divisible(wider[at] * double(shape.hidden), divisor);
    block.mlp = standard_mlp(block.path + ".ffn", shape.hidden, wide);
    fuse_gate_up(*block.mlp, block.path + ".ffn");
    block.mlp->gate_up->path = block.path + ".ffn.proj_1";
    block.mlp->down.path = block.path + ".ffn.proj_2";
  }
  return spec;
}

// mlx_lm/models/mellum.py: qwen3_moe with windows.
DecoderSpec read_mellum(const FamilyInput& input) {
  const JsonView& config = input.config;
  auto spec = read_standard(input, {.qk_norm = true, .rope = RopeFact::own});
  const int window = read_window(config, spec);
  const Json& types =
      layer_list(config, "layer_types", std::ssize(spec.blocks));
  require_full_attention(config, types);
  const auto counts = read_expert_counts(config, "num_experts");
  const auto wide = config.integer("moe_intermediate_size", 1, kMaxWidth);
  for (BlockSpec& block : spec.blocks) {
    const Json& type = types.at(static_cast<size_t>(block.index));
    const auto name = type.is_string() ? type.get<std::string>() : "";
    block.attention.rope =
        read_rope_of(config, name, block.attention.head_dim, false, spec);
    if (name != "full_attention") {
      block.attention.window = window;
    }
    MoeSpec& moe = put_experts({.counts = counts, .wide = wide}, block, spec);
    moe.router.converts_as = router_spec();
    moe.normalize = config.boolean_or("norm_topk_prob", false);
  }
  return spec;
}

}  // namespace pennyweight
