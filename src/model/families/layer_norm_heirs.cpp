// Families with layer norms, and mostly with MLPs that have no gate.

#include <cmath>

#include "core/error.h"
#include "core/json.h"
#include "model/families/standard.h"

namespace pennyweight {

namespace {

void make_layer_norm(NormSpec& norm, bool bias) {
  norm.centered = true;
  norm.bias = bias;
}

void use_layer_norms(DecoderSpec& spec, bool bias) {
  for (BlockSpec& block : spec.blocks) {
    make_layer_norm(*block.attention_norm, bias);
    make_layer_norm(*block.mlp_norm, bias);
  }
  make_layer_norm(spec.final_norm, bias);
}

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
  spec.embedding = "model.embed_in";
  spec.head->path = "model.embed_out";
  spec.final_norm.path = "model.final_layer_norm";
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

}  // namespace

// mlx_lm/models/cohere.py: cohere2 without windows; a norm for each head.
DecoderSpec read_cohere(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  note_activation(config, spec);
  auto shape = read_standard_shape(config, "layer_norm_eps");
  use_plain_heads(shape, spec);
  shape.qkv_bias = config.boolean_or("attention_bias", false);
  shape.output_bias = shape.qkv_bias;
  shape.qk_norm = config.boolean_or("use_qk_norm", false);
  shape.rope.traditional = true;
  shape.tied = true;
  drop_head(input, spec);
  read_plain_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  use_layer_norms(spec, config.boolean_or("layer_norm_bias", false));
  make_parallel(spec);
  for (BlockSpec& block : spec.blocks) {
    auto& attention = block.attention;
    if (shape.qk_norm) {
      make_layer_norm(*attention.q_norm, false);
      make_layer_norm(*attention.k_norm, false);
      attention.q_norm->heads = shape.heads;
      attention.k_norm->heads = shape.kv_heads;
    }
  }
  spec.logit_scale = read_multiplier(config, "logit_scale");
  return spec;
}

// mlx_lm/models/gpt_neox.py: q, k and v of each head in turn in one matrix;
// attention and MLP side by side, each behind a norm of its own.
DecoderSpec read_gpt_neox(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  note_activation(config, spec, "gelu_new");
  Json own = config.json();
  const auto hidden = config.integer("hidden_size", 1, kMaxWidth / 4);
  own["intermediate_size"] = 4 * hidden;
  own["num_key_value_heads"] =
      config.integer("num_attention_heads", 1, 1 << 16);
  own["rope_theta"] = config.number("rotary_emb_base");
  count_as_read(config, {"num_key_value_heads", "max_position_embeddings"});
  const auto like = config.like(own);
  auto shape = read_standard_shape(like, "layer_norm_eps");
  use_plain_heads(shape, spec);
  shape.qkv_bias = true;
  shape.output_bias = true;
  shape.mlp_bias = true;
  shape.tied = false;
  read_plain_rope(like, shape.rope, spec);
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
  note_activation(config, spec, "gelu_new", "activation_function");
  Json own = config.json();
  const auto hidden = config.integer("n_embd", 2, kMaxWidth / 4);
  own["hidden_size"] = hidden;
  own["intermediate_size"] = 4 * hidden;
  own["num_attention_heads"] = config.integer("n_head", 1, 1 << 16);
  own["num_key_value_heads"] = own["num_attention_heads"];
  own["num_hidden_layers"] = config.integer("n_layer", 1, kMaxLayers);
  own["rope_theta"] = 10000.0;
  count_as_read(config, {"n_positions"});
  const auto like = config.like(own);
  auto shape = read_standard_shape(like, "layer_norm_epsilon");
  use_plain_heads(shape, spec);
  shape.mlp_bias = true;
  shape.tied = false;
  shape.rope.traditional = true;
  read_plain_rope(like, shape.rope, spec);
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
  spec.embedding = "model.wte";
  spec.final_norm.path = "model.ln_f";
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
  const JsonView& config = input.config;
  DecoderSpec spec;
  note_activation(config, spec, "relu2");
  auto shape = read_standard_shape(config, "norm_eps");
  shape.qkv_bias = config.boolean_or("attention_bias", false);
  shape.output_bias = shape.qkv_bias;
  shape.mlp_bias = config.boolean_or("mlp_bias", false);
  shape.tied = read_tied(input, spec);
  count_as_read(config, {"rope_traditional"});
  if (const auto scaling = config.object("rope_scaling"); scaling &&
      !scaling->json().empty() &&
      (scaling->string_or("type", "") != "linear" || !scaling->has("factor"))) {
    refuse_config(
        config,
        "rope_scaling is not linear, without which mlx-lm can't load this "
        "family");
  }
  shape.rope.dims = partial_dims(config, shape.head_dim, 0.5);
  read_linear_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
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
  const JsonView& config = input.config;
  DecoderSpec spec;
  note_activation(config, spec, "gelu_new");
  auto shape = read_standard_shape(config, "layer_norm_eps");
  use_plain_heads(shape, spec);
  shape.qkv_bias = true;
  shape.output_bias = true;
  shape.mlp_bias = true;
  shape.tied = false;
  shape.rope.dims = partial_dims(config, shape.head_dim, 0.4);
  read_plain_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
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
  spec.final_norm.path = "model.final_layernorm";
  spec.head->bias = true;
  return spec;
}

// mlx_lm/models/stablelm.py
DecoderSpec read_stablelm(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  note_activation(config, spec);
  auto shape = read_standard_shape(config, "layer_norm_eps");
  use_plain_heads(shape, spec);
  if (config.boolean_or("qk_layernorm", false)) {
    refuse_config(
        config, "qk_layernorm, a module for each head, is not supported");
  }
  shape.qkv_bias = config.boolean_or("use_qkv_bias", false);
  shape.tied = false;  // the class has a head of its own
  shape.rope.dims = partial_dims(config, shape.head_dim);
  read_plain_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
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
  const JsonView& config = input.config;
  DecoderSpec spec;
  note_activation(config, spec, "gelu");
  auto shape = read_standard_shape(config, "norm_epsilon");
  use_plain_heads(shape, spec);
  shape.qkv_bias = true;
  shape.output_bias = true;
  shape.mlp_bias = true;
  shape.tied = read_tied(input, spec);
  read_plain_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
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
