// Families that differ from llama only in the names of their modules and keys,
// and in how queries, keys and values are joined.

#include <cmath>

#include "core/json.h"
#include "model/families/standard.h"

namespace pennyweight {

namespace {

// Names of modules within a block. `qkv`, where it is not empty, stands for q,
// k and v in one matrix.
struct BlockNames {
  std::string blocks{};
  std::string attention_norm{}, mlp_norm{};
  std::string q{}, k{}, v{}, qkv{}, o{};
  std::string gate{}, up{}, down{};
};

void rename_blocks(const BlockNames& names, DecoderSpec& spec) {
  for (BlockSpec& block : spec.blocks) {
    block.path = names.blocks + "." + std::to_string(block.index);
    const std::string path = block.path + ".";
    block.attention_norm->path = path + names.attention_norm;
    block.mlp_norm->path = path + names.mlp_norm;
    if (names.qkv.empty()) {
      block.attention.q.path = path + names.q;
      block.attention.k.path = path + names.k;
      block.attention.v.path = path + names.v;
    } else {
      fuse_qkv(block.attention, path + names.qkv);
    }
    block.attention.o.path = path + names.o;
    block.mlp->gate.path = path + names.gate;
    block.mlp->up.path = path + names.up;
    block.mlp->down.path = path + names.down;
  }
}

const BlockNames kGptNames = {
    .blocks = "transformer.h",
    .attention_norm = "ln_1",
    .mlp_norm = "ln_2"};

// Copies the key `from`, which the class reads, to `to`, which other classes
// read.
void rename_key(
    const JsonView& config,
    const char* from,
    const char* to,
    Json& own) {
  if (const Json* value = config.find(from)) {
    own[to] = *value;
  }
}

}  // namespace

// mlx_lm/models/apertus.py: an activation with parameters, without a gate.
DecoderSpec read_apertus(const FamilyInput& input) {
  count_as_read(input.config, {"attention_bias", "post_norm", "qk_norm"});
  auto spec = read_standard(
      input,
      {.activation = "xielu",
       .plain_heads = true,
       .mlp_bias = "mlp_bias",
       .qk_norm = true,
       .traditional = "rope_traditional"});
  for (BlockSpec& block : spec.blocks) {
    block.attention_norm->path = block.path + ".attention_layernorm";
    block.mlp_norm->path = block.path + ".feedforward_layernorm";
    const std::string act = block.path + ".mlp.act_fn.";
    auto& mlp = *block.mlp;
    mlp.gated = false;
    mlp.activation = Activation::xielu;
    mlp.xielu = XieluSpec{
        {act + "alpha_p", {}},
        {act + "alpha_n", {}},
        {act + "beta", {}},
        {act + "eps", {}}};
    for (const char* alpha : {"alpha_p", "alpha_n"}) {
      TensorSource source{.name = act + alpha};
      source.squeezed = true;
      spec.sources.emplace(act + alpha, source);
    }
  }
  return spec;
}

// mlx_lm/models/exaone.py
DecoderSpec read_exaone(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  Json own = config.json();
  rename_key(config, "num_layers", "num_hidden_layers", own);
  const auto shape = read_standard_shape(
      input.like(own),
      {.activation_key = "activation_function",
       .eps = "layer_norm_epsilon",
       .qkv_bias = "attention_bias",
       .output_bias = "attention_bias",
       .mlp_bias = "mlp_bias",
       .traditional = "rope_traditional",
       .embedding_path = "transformer.wte",
       .final_norm_path = "transformer.ln_f"},
      spec);
  if (int64_t{shape.heads} * shape.head_dim != shape.hidden) {
    refuse_config(
        config,
        "head_dim * num_attention_heads is not hidden_size, without which "
        "mlx-lm can't run this family");
  }
  fill_standard(shape, spec);
  auto names = kGptNames;
  names.q = "attn.attention.q_proj";
  names.k = "attn.attention.k_proj";
  names.v = "attn.attention.v_proj";
  names.o = "attn.attention.out_proj";
  names.gate = "mlp.c_fc_0";
  names.up = "mlp.c_fc_1";
  names.down = "mlp.c_proj";
  rename_blocks(names, spec);
  return spec;
}

// mlx_lm/models/hunyuan_v1_dense.py: rotates before it norms, by a base that
// rope_scaling's alpha raises.
DecoderSpec read_hunyuan_v1_dense(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  auto shape = read_standard_shape(
      input,
      {.qkv_bias = "attention_bias",
       .output_bias = "attention_bias",
       .qk_norm = {"use_qk_norm", true},
       .rope = RopeFact::own},
      spec);
  count_as_read(config, {"max_position_embeddings"});
  shape.rope.base = config.number("rope_theta");
  if (const auto scaling = config.object("rope_scaling");
      scaling && !scaling->json().empty()) {
    if (!scaling->has("alpha") || !scaling->has("factor") ||
        !scaling->has("type")) {
      refuse_config(
          config,
          "rope_scaling wants an alpha, a factor and a type, without which "
          "mlx-lm can't load this family");
    }
    const double dims = shape.head_dim;
    shape.rope.base *=
        std::pow(read_multiplier(*scaling, "alpha"), dims / (dims - 2));
  }
  fill_standard(shape, spec);
  for (BlockSpec& block : spec.blocks) {
    if (shape.qk_norm) {
      block.attention.norms_behind_rope = true;
      block.attention.q_norm->path = block.path + ".self_attn.query_layernorm";
      block.attention.k_norm->path = block.path + ".self_attn.key_layernorm";
    }
  }
  return spec;
}

// mlx_lm/models/internlm2.py: q, k and v by groups in one matrix.
DecoderSpec read_internlm2(const FamilyInput& input) {
  require_scaling(input.config, "type", {"linear", "dynamic"});
  auto spec = read_standard(
      input,
      {.plain_heads = true,
       .qkv_bias = {"bias", true},
       .output_bias = {"bias", true},
       .traditional = "rope_traditional",
       .embedding_path = "model.tok_embeddings",
       .head_path = "output"});
  rename_blocks(
      {.blocks = "model.layers",
       .attention_norm = "attention_norm",
       .mlp_norm = "ffn_norm",
       .qkv = "attention.wqkv",
       .o = "attention.wo",
       .gate = "feed_forward.w1",
       .up = "feed_forward.w3",
       .down = "feed_forward.w2"},
      spec);
  for (BlockSpec& block : spec.blocks) {
    block.attention.by_group = true;
  }
  spec.dropped.push_back("*attention.rope.inv_freq");
  return spec;
}

// mlx_lm/models/lille-130m.py
DecoderSpec read_lille_130m(const FamilyInput& input) {
  const JsonView& config = input.config;
  Json own = config.json();
  rename_key(config, "n_embd", "hidden_size", own);
  rename_key(config, "n_head", "num_attention_heads", own);
  rename_key(config, "n_kv_heads", "num_key_value_heads", own);
  rename_key(config, "n_layer", "num_hidden_layers", own);
  const auto hidden = config.integer("n_embd", 128, kMaxWidth / 4);
  own["intermediate_size"] = static_cast<int64_t>(
      256 * std::nearbyint(std::floor(8.0 * double(hidden) / 3) / 256));
  count_as_read(config, {"block_size", "tie_word_embeddings"});
  // The head is the embedding whatever tie_word_embeddings says.
  auto spec = read_standard(
      input.like(own),
      {.activation = nullptr,
       .eps = "layer_norm_eps",
       .plain_heads = true,
       .head = HeadFact::tied,
       .traditional = true,
       .rope = RopeFact::plain,
       .embedding_path = "transformer.tok_embeddings",
       .final_norm_path = "transformer.norm"});
  rename_blocks(
      {.blocks = "transformer.layers",
       .attention_norm = "attention.norm",
       .mlp_norm = "feed_forward.norm",
       .qkv = "attention.qkv_proj",
       .o = "attention.out_proj",
       .gate = "feed_forward.gate_proj",
       .up = "feed_forward.up_proj",
       .down = "feed_forward.down_proj"},
      spec);
  spec.dropped.push_back("*rotary_emb");
  return spec;
}

// mlx_lm/models/qwen.py, the first generation: half of intermediate_size is
// gate and half up.
DecoderSpec read_qwen(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  Json own = config.json();
  own["intermediate_size"] =
      config.integer("intermediate_size", 2, kMaxWidth) / 2;
  own["num_key_value_heads"] =
      config.integer("num_attention_heads", 1, 1 << 16);
  own["rope_theta"] = 10000.0;  // whatever rotary_emb_base says
  count_as_read(config, {"max_position_embeddings"});
  auto shape = read_standard_shape(
      input.like(own),
      {.activation = nullptr,
       .eps = "layer_norm_epsilon",
       .plain_heads = true,
       .qkv_bias = true,
       .head = HeadFact::own,
       .rope = RopeFact::plain,
       .embedding_path = "transformer.wte",
       .final_norm_path = "transformer.ln_f"},
      spec);
  if (config.integer("kv_channels", 1, 1 << 14) * shape.heads != shape.hidden) {
    refuse_config(
        config,
        "kv_channels * num_attention_heads is not hidden_size, without which "
        "mlx-lm can't run this family");
  }
  const bool bias = !config.boolean_or("no_bias", true);
  shape.output_bias = bias;
  shape.mlp_bias = bias;
  fill_standard(shape, spec);
  auto names = kGptNames;
  names.qkv = "attn.c_attn";
  names.o = "attn.c_proj";
  names.gate = "mlp.w2";
  names.up = "mlp.w1";
  names.down = "mlp.c_proj";
  rename_blocks(names, spec);
  spec.head->bias = bias;
  return spec;
}

}  // namespace pennyweight
