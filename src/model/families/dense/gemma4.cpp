// Gemma 4: heads of two sizes, keys that are values, experts beside an MLP; in
// the small ones an embedding for each layer, and layers that read the keys and
// values of earlier ones.

#include <cmath>

#include "core/json.h"
#include "model/config/class_config.h"
#include "model/families/moe.h"
#include "model/families/wrapped.h"
#include "model/stream/columns.h"

namespace pennyweight {

namespace {

constexpr int64_t kDefaultVocab = 262144;

struct Gemma4Shape {
  StandardShape base;
  int global_dim = 0;  // head dimension of layers without a window
  int global_kv = 0;   // key heads of layers whose keys are their values
  bool keys_as_values = false;
  int own_keys = 0;    // how many layers, the first ones, have keys and values
  bool wider = false;  // layers without have MLPs twice as wide
  std::vector<bool> slides;
  int window = 0;
  RopeSpec local, global;
};

std::vector<bool> read_gemma4_slides(const JsonView& config, int layers) {
  const auto pattern = config.integer("sliding_window_pattern", 1, 1 << 20);
  const Json* types = find_layer_list(config, "layer_types", layers);
  std::vector<bool> slides;
  for (int i = 0; i < layers && !types; ++i) {
    slides.push_back((i + 1) % pattern != 0);
  }
  if (!types) {
    return slides;
  }
  for (const Json& type : *types) {
    if (type != "sliding_attention" && type != "full_attention") {
      refuse_config(
          config,
          "a layer of type " + one_line(type.dump(), 60) +
              ", which mlx-lm can't run in this family");
    }
    slides.push_back(type == "sliding_attention");
  }
  return slides;
}

// The class has rope_parameters of its own where the config has none.
RopeSpec read_gemma4_rope(
    const JsonView& config,
    bool slides,
    int dims,
    DecoderSpec& spec) {
  const char* key = slides ? "sliding_attention" : "full_attention";
  const Json own = slides
      ? Json{{"rope_theta", 10000.0}, {"rope_type", "default"}}
      : Json{
            {"partial_rotary_factor", 0.25},
            {"rope_theta", 1000000.0},
            {"rope_type", "proportional"}};
  const auto given = config.object("rope_parameters");
  const Json* found = given ? given->find(key) : &own;
  const Json none = Json::object();
  const JsonView parameters(
      found ? *found : none, config.origin() + ": rope_parameters");
  RopeSpec rope;
  rope.dims = dims;
  rope.traditional = config.boolean_or("rope_traditional", false);
  rope.base =
      check_rope_base(config, parameters.number_or("rope_theta", 10000));
  read_rope_scaling(parameters, read_positions(config), rope, spec.notes);
  return rope;
}

Gemma4Shape read_gemma4_shape(const FamilyInput& input, DecoderSpec& spec) {
  const JsonView& config = input.config;
  Gemma4Shape shape;
  shape.base = read_standard_shape(
      input,
      {.activation = "gelu_pytorch_tanh",
       .activation_key = "hidden_activation",
       .qk_norm = true,
       .head = HeadFact::own,
       .rope = RopeFact::own},
      spec);
  const int layers = shape.base.layers;
  shape.global_dim =
      static_cast<int>(config.integer_or("global_head_dim", 0, 0, 1 << 16));
  if (shape.global_dim == 0) {
    shape.global_dim = shape.base.head_dim;
  }
  shape.keys_as_values = config.boolean_or("attention_k_eq_v", false);
  shape.global_kv = static_cast<int>(config.integer_or(
      "num_global_key_value_heads", shape.base.kv_heads, 1, shape.base.heads));
  if (shape.base.heads % shape.global_kv != 0) {
    throw wrong_config(
        config, "\"num_global_key_value_heads\" does not divide the heads");
  }
  shape.own_keys = layers -
      static_cast<int>(config.integer_or("num_kv_shared_layers", 0, 0, layers));
  shape.wider = config.boolean_or("use_double_wide_mlp", true);
  shape.slides = read_gemma4_slides(config, layers);
  shape.window = read_window(config, spec);
  shape.local = read_gemma4_rope(config, true, shape.base.head_dim, spec);
  shape.global = read_gemma4_rope(config, false, shape.global_dim, spec);
  return shape;
}

// The last block of the same kind that has keys of its own.
int find_gemma4_keys(
    const JsonView& config,
    const Gemma4Shape& shape,
    int layer) {
  const auto index = static_cast<size_t>(layer);
  for (int from = shape.own_keys; from-- > 0;) {
    if (shape.slides[static_cast<size_t>(from)] == shape.slides[index]) {
      return from;
    }
  }
  refuse_config(
      config,
      "layer " + std::to_string(layer) +
          " shares the keys of an earlier one of its type, and there is none "
          "(num_kv_shared_layers), so that mlx-lm can't run it");
}

void fill_gemma4_attention(
    const JsonView& config,
    const Gemma4Shape& shape,
    BlockSpec& block,
    DecoderSpec& spec) {
  auto& attention = block.attention;
  const bool slides = shape.slides[static_cast<size_t>(block.index)];
  const std::string path = block.path + ".self_attn.";
  const int64_t hidden = shape.base.hidden;
  attention.head_dim = slides ? shape.base.head_dim : shape.global_dim;
  attention.keys_as_values = shape.keys_as_values && !slides;
  attention.kv_heads =
      attention.keys_as_values ? shape.global_kv : shape.base.kv_heads;
  attention.window = slides ? shape.window : 0;
  attention.rope = slides ? shape.local : shape.global;
  attention.scale = 1;
  attention.value_eps = shape.base.eps;
  const int64_t size = attention.head_dim;
  attention.q.out = attention.heads * size;
  attention.k.out = attention.kv_heads * size;
  attention.v.out = attention.k.out;
  attention.o = {path + "o_proj", hidden, attention.heads * size};
  attention.q_norm->size = size;
  attention.k_norm->size = size;
  if (block.index < shape.own_keys) {
    return;
  }
  attention.keys_of = find_gemma4_keys(config, shape, block.index);
  attention.k_norm.reset();
  for (const char* part : {"k_proj.", "v_proj.", "k_norm."}) {
    spec.dropped.push_back(path + part);
  }
}

void fill_gemma4_experts(
    const JsonView& config,
    const Gemma4Shape& shape,
    BlockSpec& block,
    DecoderSpec& spec) {
  const auto count = config.integer("num_experts", 1, 1 << 12);
  const auto chosen = config.integer("top_k_experts", 1, count);
  const auto wide = config.integer("moe_intermediate_size", 1, kMaxWidth);
  const int64_t hidden = shape.base.hidden;
  const std::string router = block.path + ".router.";
  const auto norm = [&](const char* name) {
    return block_norm(block, name, spec);
  };
  MoeSpec moe;
  moe.router = {.path = router + "proj", .out = count, .in = hidden};
  moe.router.converts_as = router_spec();
  moe.router_scale = ParameterSpec{router + "scale", {hidden}};
  moe.router_eps = shape.base.eps;
  moe.expert_scale = ParameterSpec{router + "per_expert_scale", {count}};
  moe.count = static_cast<int>(count);
  moe.chosen = static_cast<int>(chosen);
  moe.scores = MoeSpec::Scores::chosen_softmax;
  moe.norm = norm(".pre_feedforward_layernorm_2");
  moe.post = norm(".post_feedforward_layernorm_2");
  moe.mlp_post = norm(".post_feedforward_layernorm_1");
  const std::string experts = block.path + ".experts.";
  moe.experts = standard_mlp(experts + "switch_glu", hidden, wide);
  moe.experts.activation = Activation::gelu;
  for (LinearSpec* linear :
       {&moe.experts.gate, &moe.experts.up, &moe.experts.down}) {
    linear->count = count;
  }
  split_gate_up(
      moe.experts,
      {.name = experts + "gate_up_proj"},
      experts + "down_proj",
      spec);
  block.moe = std::move(moe);
}

void fill_gemma4_block(
    const JsonView& config,
    const Gemma4Shape& shape,
    BlockSpec& block,
    DecoderSpec& spec) {
  const int64_t hidden = shape.base.hidden;
  const auto norm = [&](const char* name) {
    return block_norm(block, name, spec);
  };
  fill_gemma4_attention(config, shape, block, spec);
  block.attention_post = norm(".post_attention_layernorm");
  block.mlp_norm = norm(".pre_feedforward_layernorm");
  block.mlp_post = norm(".post_feedforward_layernorm");
  const bool shared = block.index >= shape.own_keys;
  block.mlp = standard_mlp(
      block.path + ".mlp",
      hidden,
      shape.base.intermediate * (shape.wider && shared ? 2 : 1));
  block.mlp->activation = Activation::gelu;
  block.scalar = ParameterSpec{block.path + ".layer_scalar", {1}};
  if (config.boolean_or("enable_moe_block", false)) {
    fill_gemma4_experts(config, shape, block, spec);
  }
}

void fill_gemma4_inputs(
    const JsonView& config,
    const Gemma4Shape& shape,
    DecoderSpec& spec) {
  const auto size =
      config.integer_or("hidden_size_per_layer_input", 0, 0, 1 << 16);
  const auto vocab =
      config.integer("vocab_size_per_layer_input", 1, kMaxWidth * 8);
  if (size == 0) {
    return;
  }
  const int64_t hidden = shape.base.hidden;
  const int64_t all = size * shape.base.layers;
  const std::string path = shape.base.prefix + "model.";
  spec.token_inputs = TokenInputsSpec{
      .table = path + "embed_tokens_per_layer",
      .vocab = vocab,
      .size = size,
      .table_scale = std::sqrt(static_cast<float>(size)),
      .projection = {path + "per_layer_model_projection", all, hidden},
      .projection_scale = 1 / std::sqrt(static_cast<float>(hidden)),
      .norm = {path + "per_layer_projection_norm", size, shape.base.eps},
      .scale = std::sqrt(0.5f)};
  for (BlockSpec& block : spec.blocks) {
    block.token_gate = TokenGateSpec{
        {block.path + ".per_layer_input_gate", size, hidden},
        {block.path + ".per_layer_projection", hidden, size},
        {block.path + ".post_per_layer_input_norm", hidden, shape.base.eps}};
  }
}

// Drops ranges of activations, which some checkpoints have beside their
// linears.
void drop_gemma4_ranges(const FamilyInput& input, DecoderSpec& spec) {
  for (const std::string prefix :
       {"model.layers.", "model.language_model.", "language_model."}) {
    for (const auto& name : input.tensors_under(prefix)) {
      for (const char* end :
           {"input_max", "input_min", "output_max", "output_min"}) {
        if (name.ends_with(end)) {
          spec.dropped.push_back(name);
        }
      }
    }
  }
}

}  // namespace

// mlx_lm/models/gemma4_text.py
DecoderSpec read_gemma4_text(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  count_as_read(
      config,
      {"global_partial_rotary_factor",
       "moe_intermediate_size",
       "num_experts",
       "pad_token_id",
       "partial_rotary_factor",
       "top_k_experts",
       "vocab_size_per_layer_input"});
  auto shape = read_gemma4_shape(input, spec);
  shape.base.tied = read_tied(input, spec);
  fill_standard(shape.base, spec);
  spec.embedding_scale = std::sqrt(static_cast<float>(shape.base.hidden));
  spec.embedding_scale_in_type = true;
  spec.logit_cap =
      static_cast<float>(config.number_or("final_logit_softcapping", 0));
  for (BlockSpec& block : spec.blocks) {
    fill_gemma4_block(config, shape, block, spec);
  }
  fill_gemma4_inputs(config, shape, spec);
  link_shared_keys(spec);
  drop_gemma4_ranges(input, spec);
  return spec;
}

// mlx_lm/models/gemma4.py, which also stands for gemma4_unified, with its own
// defaults for the text part.
DecoderSpec read_gemma4(const FamilyInput& input) {
  const Json* given = input.config.find("text_config");
  const Json before = given ? *given : Json::object();
  if (!before.is_object()) {
    throw wrong_config(input.config, "\"text_config\" is not an object");
  }
  Json text = before;
  const auto set_default = [&](const char* key, int64_t value) {
    if (!text.contains(key)) {
      text[key] = value;
    }
  };
  set_default("num_attention_heads", 8);
  set_default("num_key_value_heads", 1);
  const bool said = has_key(*input.given, "vocab_size");
  if (said || !has_key(text, "vocab_size")) {
    text["vocab_size"] = input.config.integer("vocab_size", 1, kMaxWidth * 8);
  }
  auto spec = read_language_model(
      input,
      JsonView(text, input.config.origin() + ": text_config"),
      "gemma4_text",
      read_gemma4_text,
      hub_name);
  carry_parts(
      input,
      {"vision_tower.",
       "multi_modal_projector.",
       "audio_tower.",
       "embed_audio.",
       "embed_vision.",
       "vision_embedder."},
      spec);
  nest_patch(before, spec);
  if (!said && spec.vocab != kDefaultVocab) {
    spec.config_patch["vocab_size"] = spec.vocab;
  }
  return spec;
}

}  // namespace pennyweight
