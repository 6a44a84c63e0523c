// Families with layer norms, and mostly with MLPs that have no gate.

#include "core/json.h"
#include "model/families/standard.h"

namespace pennyweight {

namespace {

// Attention and MLP read the same norm and are added at once.
void make_parallel(DecoderSpec& spec) {
  for (BlockSpec& block : spec.blocks) {
    block.parallel = true;
    block.mlp_norm.reset();
  }
}

MlpSpec ungated_mlp(
    const std::string& up,
    const std::string& down,
    const MlpSpec& like,
    Activation activation) {
  MlpSpec mlp{
      .gate = {},
      .up = like.up,
      .down = like.down,
      .activation = activation,
      .gated = false};
  mlp.up.path = up;
  mlp.down.path = down;
  return mlp;
}

void name_gpt_neox(DecoderSpec& spec) {
  for (const char* part_name : {".attention.bias", ".attention.masked_bias"}) {
    spec.dropped.push_back(std::string("*") + part_name);
  }
  add_stored_names(
      [](const std::string& name) -> std::string {
        if (name.starts_with("model.h.")) {
          return "gpt_neox.layers." + name.substr(8);
        }
        return name.starts_with("model.embed_out")
            ? name.substr(6)
            : "gpt_neox." + name.substr(6);
      },
      spec);
}

// What cohere and cohere2 share.
StandardShape
read_cohere_shape(const FamilyInput& input, bool plain, DecoderSpec& spec) {
  auto shape = read_standard_shape(
      input,
      {.eps = "layer_norm_eps",
       .plain_heads = plain,
       .qkv_bias = "attention_bias",
       .output_bias = "attention_bias",
       .head = HeadFact::dropped,
       .traditional = true,
       .rope = RopeFact::plain},
      spec);
  shape.qk_norm = plain && input.config.boolean_or("use_qk_norm", false);
  fill_standard(shape, spec);
  use_layer_norms(spec, input.config.boolean_or("layer_norm_bias", false));
  make_parallel(spec);
  spec.logit_scale = read_multiplier(input.config, "logit_scale");
  return shape;
}

}  // namespace

// mlx_lm/models/cohere.py: cohere2 without windows; a norm for each head.
DecoderSpec read_cohere(const FamilyInput& input) {
  DecoderSpec spec;
  const auto shape = read_cohere_shape(input, true, spec);
  for (BlockSpec& block : spec.blocks) {
    auto& attention = block.attention;
    if (shape.qk_norm) {
      attention.q_norm->centered = true;
      attention.q_norm->heads = shape.heads;
      attention.k_norm->centered = true;
      attention.k_norm->heads = shape.kv_heads;
    }
  }
  return spec;
}

// mlx_lm/models/cohere2.py: attention and MLP side by side behind one layer
// norm; rope on the layers with a window alone.
DecoderSpec read_cohere2(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  const auto shape = read_cohere_shape(input, false, spec);
  if (shape.head_dim * int64_t{shape.heads} != shape.hidden) {
    refuse_config(
        config,
        "head_dim * num_attention_heads is not hidden_size, without which "
        "mlx-lm can't load this family");
  }
  const int window = read_window(config, spec);
  const auto pattern = config.integer("sliding_window_pattern", 1, 1 << 20);
  for (BlockSpec& block : spec.blocks) {
    block.attention.wide_scores = true;
    if ((block.index + 1) % pattern == 0) {
      block.attention.rope.dims = 0;
    } else {
      block.attention.window = window;
    }
  }
  return spec;
}

// mlx_lm/models/gpt_neox.py: q, k and v of each head in turn in one matrix;
// attention and MLP side by side, each behind a norm of its own.
DecoderSpec read_gpt_neox(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  Json own = config.json();
  const auto hidden = config.integer("hidden_size", 1, kMaxWidth / 4);
  own["intermediate_size"] = 4 * hidden;
  own["num_key_value_heads"] =
      config.integer("num_attention_heads", 1, 1 << 16);
  own["rope_theta"] = config.number("rotary_emb_base");
  count_as_read(config, {"num_key_value_heads", "max_position_embeddings"});
  auto shape = read_standard_shape(
      input.like(own),
      {.activation = "gelu_new",
       .eps = "layer_norm_eps",
       .plain_heads = true,
       .qkv_bias = true,
       .output_bias = true,
       .mlp_bias = true,
       .head = HeadFact::own,
       .rope = RopeFact::plain,
       .embedding_path = "model.embed_in",
       .final_norm_path = "model.final_layer_norm",
       .head_path = "model.embed_out"},
      spec);
  const double part = config.number("rotary_pct");
  shape.rope.dims = static_cast<int>(shape.head_dim * part);
  if (!(part > 0) || part > 1 || shape.rope.dims < 2 ||
      shape.rope.dims % 2 != 0) {
    refuse_config(
        config, "\"rotary_pct\" must rotate an even part of each head");
  }
  fill_standard(shape, spec);
  use_layer_norms(spec, true);
  const bool parallel = config.boolean_or("use_parallel_residual", true);
  for (BlockSpec& block : spec.blocks) {
    block.path = "model.h." + std::to_string(block.index);
    block.parallel = parallel;
    block.attention_norm->path = block.path + ".input_layernorm";
    block.mlp_norm->path = block.path + ".post_attention_layernorm";
    block.attention.by_group = true;
    fuse_qkv(block.attention, block.path + ".attention.query_key_value");
    block.attention.o.path = block.path + ".attention.dense";
    block.mlp = ungated_mlp(
        block.path + ".mlp.dense_h_to_4h",
        block.path + ".mlp.dense_4h_to_h",
        *block.mlp,
        Activation::gelu);
  }
  name_gpt_neox(spec);
  return spec;
}

// mlx_lm/models/gptj.py: attention and MLP side by side behind one norm.
DecoderSpec read_gptj(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  Json own = config.json();
  const auto hidden = config.integer("n_embd", 2, kMaxWidth / 4);
  own["hidden_size"] = hidden;
  own["intermediate_size"] = 4 * hidden;
  own["num_attention_heads"] = config.integer("n_head", 1, 1 << 16);
  own["num_key_value_heads"] = own["num_attention_heads"];
  own["num_hidden_layers"] = config.integer("n_layer", 1, kMaxLayers);
  own["rope_theta"] = 10000.0;
  count_as_read(config, {"n_positions"});
  auto shape = read_standard_shape(
      input.like(own),
      {.activation = "gelu_new",
       .activation_key = "activation_function",
       .eps = "layer_norm_epsilon",
       .plain_heads = true,
       .mlp_bias = true,
       .head = HeadFact::own,
       .traditional = true,
       .rope = RopeFact::plain,
       .embedding_path = "model.wte",
       .final_norm_path = "model.ln_f"},
      spec);
  const auto rotated = config.integer_or("rotary_dim", 0, 0, shape.head_dim);
  if (rotated % 2 != 0) {
    refuse_config(config, "\"rotary_dim\" must be even");
  }
  shape.rope.dims = rotated > 0 ? static_cast<int>(rotated) : shape.head_dim;
  fill_standard(shape, spec);
  use_layer_norms(spec, true);
  make_parallel(spec);
  for (BlockSpec& block : spec.blocks) {
    block.path = "model.h." + std::to_string(block.index);
    block.attention_norm->path = block.path + ".ln_1";
    auto& attention = block.attention;
    attention.q.path = block.path + ".attn.q_proj";
    attention.k.path = block.path + ".attn.k_proj";
    attention.v.path = block.path + ".attn.v_proj";
    attention.o.path = block.path + ".attn.out_proj";
    block.mlp = ungated_mlp(
        block.path + ".mlp.fc_in",
        block.path + ".mlp.fc_out",
        *block.mlp,
        Activation::gelu);
  }
  spec.head->bias = true;
  for (const char* part_name : {".attn.bias", ".attn.masked_bias"}) {
    spec.dropped.push_back(std::string("*") + part_name);
  }
  add_stored_names(
      [](const std::string& name) -> std::string {
        return name.starts_with("model.") ? "transformer." + name.substr(6)
                                          : name;
      },
      spec);
  return spec;
}

// mlx_lm/models/nemotron.py: layer norms that add 1 to their weights, relu
// squared without a gate.
DecoderSpec read_nemotron(const FamilyInput& input) {
  count_as_read(input.config, {"rope_traditional"});
  require_scaling(input.config, "type", {"linear"});
  auto spec = read_standard(
      input,
      {.activation = "relu2",
       .eps = "norm_eps",
       .qkv_bias = "attention_bias",
       .output_bias = "attention_bias",
       .mlp_bias = "mlp_bias",
       .part = 0.5,
       .rope = RopeFact::linear});
  use_layer_norms(spec, true);
  for (BlockSpec& block : spec.blocks) {
    block.attention_norm->offset = 1;
    block.mlp_norm->offset = 1;
    block.mlp = ungated_mlp(
        block.mlp->up.path,
        block.mlp->down.path,
        *block.mlp,
        Activation::relu2);
  }
  spec.final_norm.offset = 1;
  return spec;
}

// mlx_lm/models/phi.py: attention and MLP side by side, biases everywhere.
DecoderSpec read_phi(const FamilyInput& input) {
  auto spec = read_standard(
      input,
      {.activation = "gelu_new",
       .eps = "layer_norm_eps",
       .plain_heads = true,
       .qkv_bias = true,
       .output_bias = true,
       .mlp_bias = true,
       .head = HeadFact::own,
       .part = 0.4,
       .rope = RopeFact::plain,
       .final_norm_path = "model.final_layernorm"});
  use_layer_norms(spec, true);
  make_parallel(spec);
  for (BlockSpec& block : spec.blocks) {
    block.attention.wide_scores = true;
    block.attention.o.path = block.path + ".self_attn.dense";
    block.mlp = ungated_mlp(
        block.path + ".mlp.fc1",
        block.path + ".mlp.fc2",
        *block.mlp,
        Activation::gelu);
  }
  spec.head->bias = true;
  return spec;
}

// mlx_lm/models/stablelm.py
DecoderSpec read_stablelm(const FamilyInput& input) {
  const JsonView& config = input.config;
  if (config.boolean_or("qk_layernorm", false)) {
    refuse_config(
        config, "qk_layernorm, a module for each head, is not supported");
  }
  auto spec = read_standard(
      input,
      {.eps = "layer_norm_eps",
       .plain_heads = true,
       .qkv_bias = "use_qkv_bias",
       .head = HeadFact::own,
       .part = 1,
       .rope = RopeFact::plain});
  use_layer_norms(spec, true);
  if (config.boolean_or("use_parallel_residual", false)) {
    make_parallel(spec);
  }
  for (BlockSpec& block : spec.blocks) {
    block.attention.wide_scores = true;
  }
  return spec;
}

// mlx_lm/models/starcoder2.py
DecoderSpec read_starcoder2(const FamilyInput& input) {
  auto spec = read_standard(
      input,
      {.activation = "gelu",
       .eps = "norm_epsilon",
       .plain_heads = true,
       .qkv_bias = true,
       .output_bias = true,
       .mlp_bias = true,
       .rope = RopeFact::plain});
  use_layer_norms(spec, true);
  for (BlockSpec& block : spec.blocks) {
    block.mlp = ungated_mlp(
        block.path + ".mlp.c_fc",
        block.path + ".mlp.c_proj",
        *block.mlp,
        Activation::gelu_erf);
  }
  return spec;
}

}  // namespace pennyweight
