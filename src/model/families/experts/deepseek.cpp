#include <charconv>
#include <cmath>
#include <set>

#include "model/families/experts/latent.h"
#include "model/families/moe.h"

namespace pennyweight {

LatentShape read_latent_shape(const JsonView& config) {
  LatentShape shape;
  const auto size = [&](const char* key, int64_t low) {
    return static_cast<int>(config.integer(key, low, 1 << 16));
  };
  shape.q_rank = config.has("q_lora_rank") ? size("q_lora_rank", 1) : 0;
  shape.rank = size("kv_lora_rank", 1);
  shape.nope = size("qk_nope_head_dim", 1);
  shape.rope = size("qk_rope_head_dim", 2);
  shape.value = size("v_head_dim", 1);
  if (shape.value > shape.nope + shape.rope || shape.rope % 2 != 0) {
    refuse_config(
        config,
        "heads whose values are wider than their keys, or rotate an odd number "
        "of channels");
  }
  return shape;
}

void fill_latent(
    const LatentShape& shape,
    int64_t hidden,
    bool bias,
    BlockSpec& block,
    float eps) {
  auto& attention = block.attention;
  const std::string path = block.path + ".self_attn.";
  const int64_t heads = attention.heads;
  attention.kv_heads = attention.heads;
  attention.head_dim = shape.nope + shape.rope;
  LatentSpec latent;
  const int64_t q_out = heads * attention.head_dim;
  if (shape.q_rank > 0) {
    latent.q_a = LinearSpec{path + "q_a_proj", shape.q_rank, hidden, bias};
    latent.q_norm = NormSpec{path + "q_a_layernorm", shape.q_rank, eps};
    latent.q_b = LinearSpec{path + "q_b_proj", q_out, shape.q_rank};
  } else {
    attention.q = {path + "q_proj", q_out, hidden};
  }
  latent.kv_a = {
      path + "kv_a_proj_with_mqa", shape.rank + shape.rope, hidden, bias};
  latent.kv_norm = {path + "kv_a_layernorm", shape.rank, eps};
  latent.kv_b = LinearSpec{
      path + "kv_b_proj", heads * (shape.nope + shape.value), shape.rank};
  latent.rank = shape.rank;
  latent.nope_dim = shape.nope;
  latent.rope_dim = shape.rope;
  latent.value_dim = shape.value;
  attention.latent = std::move(latent);
  attention.o = {path + "o_proj", hidden, heads * shape.value, bias};
  attention.scale =
      static_cast<float>(1 / std::sqrt(double(attention.head_dim)));
}

void split_by_heads(BlockSpec& block, DecoderSpec& spec) {
  auto& latent = *block.attention.latent;
  const int heads = block.attention.heads;
  const std::string path = block.path + ".self_attn.";
  latent.key = LinearSpec{
      .path = path + "embed_q",
      .out = latent.rank,
      .in = latent.nope_dim,
      .count = heads};
  latent.value = LinearSpec{
      .path = path + "unembed_out",
      .out = latent.value_dim,
      .in = latent.rank,
      .count = heads};
  const TensorSource whole{
      .name = latent.kv_b->path + ".weight", .split = heads};
  TensorSource keys = whole;
  keys.end = latent.nope_dim;
  keys.transposed = true;
  TensorSource values = whole;
  values.first = latent.nope_dim;
  spec.sources.emplace(latent.key->path + ".weight", keys);
  spec.sources.emplace(latent.value->path + ".weight", values);
  latent.kv_b.reset();
}

DecoderSpec read_latent_deepseek(
    const FamilyInput& input,
    std::optional<float> eps) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  const auto latent = read_latent_shape(config);
  count_as_read(
      config,
      {"moe_intermediate_size",
       "n_shared_experts",
       "num_experts_per_tok",
       "first_k_dense_replace",
       "moe_layer_freq",
       "norm_topk_prob",
       "n_group",
       "topk_group",
       "topk_method",
       "scoring_func",
       "routed_scaling_factor"});
  auto shape = read_standard_shape(input, {.head = HeadFact::own}, spec);
  const bool bias = config.boolean_or("attention_bias", false);
  shape.rope.dims = latent.rope;
  shape.rope.traditional = true;
  fill_standard(shape, spec);
  double scale = 1 / std::sqrt(double(latent.nope + latent.rope));
  if (shape.rope.mscale_all_dim != 0 && shape.rope.factor > 1) {
    const double wider =
        0.1 * shape.rope.mscale_all_dim * std::log(shape.rope.factor) + 1;
    scale *= wider * wider;
  }
  for (BlockSpec& block : spec.blocks) {
    fill_latent(latent, shape.hidden, bias, block, eps.value_or(kLatentEps));
    block.attention.scale = static_cast<float>(scale);
  }
  add_deepseek_experts(config, spec);
  return spec;
}

// mlx_lm/models/deepseek_v2.py
DecoderSpec read_deepseek_v2(const FamilyInput& input) {
  const JsonView& config = input.config;
  auto spec = read_latent_deepseek(input);
  const auto scaling = config.object("rope_scaling");
  if (!scaling || !scaling->has("factor")) {
    refuse_config(
        config,
        "no rope_scaling with a factor, without which mlx-lm cannot load this "
        "family");
  }
  const auto method = config.string("topk_method");
  for (BlockSpec& block : spec.blocks) {
    if (!block.moe) {
      continue;
    }
    auto& moe = *block.moe;
    moe.router.packable = false;
    moe.scale =
        static_cast<float>(config.number_or("routed_scaling_factor", 1));
    if (method == "group_limited_greedy") {
      moe.groups = static_cast<int>(config.integer("n_group", 1, moe.count));
      moe.chosen_groups =
          static_cast<int>(config.integer("topk_group", 1, moe.groups));
    }
  }
  return spec;
}

namespace {

// Adds to spec.mtp the layers behind the last, which predict further tokens and
// which the class does not read.
void set_later_layers_apart(const FamilyInput& input, DecoderSpec& spec) {
  const std::string prefix = "model.layers.";
  std::set<size_t> later;
  for (const auto& name : input.tensors_under(prefix)) {
    size_t layer = 0;  // of a name without a number, which is no layer's
    std::from_chars(
        name.data() + prefix.size(), name.data() + name.size(), layer);
    if (layer >= spec.blocks.size()) {
      later.insert(layer);
    }
  }
  for (const size_t layer : later) {
    spec.mtp.push_back(prefix + std::to_string(layer) + ".");
  }
}

void split_and_correct(
    const JsonView& config,
    BlockSpec& block,
    DecoderSpec& spec) {
  split_by_heads(block, spec);
  if (block.moe) {
    read_corrected_router(config, block.path + ".mlp", *block.moe);
  }
}

void add_indexer(const JsonView& config, BlockSpec& block) {
  auto& latent = *block.attention.latent;
  const auto heads = config.integer("index_n_heads", 1, 1 << 16);
  const auto size = config.integer("index_head_dim", 2, 1 << 16);
  const auto most = config.integer("index_topk", 1, 1 << 30);
  const std::string path = block.path + ".self_attn.indexer.";
  const int64_t hidden = block.attention.o.out;
  latent.indexer = IndexerSpec{
      {path + "wq_b", heads * size, latent.q_b->in},
      {path + "wk", size, hidden},
      {path + "weights_proj", heads, hidden},
      {.path = path + "k_norm",
       .size = size,
       .eps = 1e-5f,
       .centered = true,
       .bias = true},
      static_cast<int>(most)};
}

}  // namespace

// mlx_lm/models/deepseek_v32.py and, by its rope_parameters, glm_moe_dsa.py
DecoderSpec read_deepseek_v32(const FamilyInput& input) {
  const JsonView& config = input.config;
  auto spec = read_latent_deepseek(input);
  count_as_read(config, {"indexer_rope_interleave", "rope_parameters"});
  for (BlockSpec& block : spec.blocks) {
    if (!block.attention.latent->q_b) {
      refuse_config(
          config,
          "no \"q_lora_rank\", without which mlx-lm cannot load this family");
    }
    add_indexer(config, block);
    split_and_correct(config, block, spec);
  }
  set_later_layers_apart(input, spec);
  return spec;
}

// mlx_lm/models/deepseek_v3.py, which splits kv_b_proj by heads into two
// stacks: embed_q for the keys, turned round, and unembed_out for the values.
DecoderSpec read_deepseek_v3(const FamilyInput& input) {
  const JsonView& config = input.config;
  auto spec = read_latent_deepseek(input);
  for (BlockSpec& block : spec.blocks) {
    split_and_correct(config, block, spec);
  }
  // mlx-lm takes layer 61 for the one that predicts further tokens.
  if (spec.blocks.size() > 61) {
    refuse_config(
        config,
        "mlx-lm drops layer 61 of this family, whatever num_hidden_layers "
        "says, and can't load a model that needs it");
  }
  spec.mtp.push_back(input.prefix + "model.layers.61.");
  set_next_layers_apart(config, spec);
  return spec;
}

// mlx_lm/models/glm4_moe_lite.py, DeepSeek-V3's heir with norms of its own eps.
DecoderSpec read_glm4_moe_lite(const FamilyInput& input) {
  const JsonView& config = input.config;
  auto spec = read_latent_deepseek(
      input, static_cast<float>(config.number("rms_norm_eps")));
  count_as_read(
      config, {"attention_dropout", "quantization", "tie_word_embeddings"});
  if (const double part = config.number_or("partial_rotary_factor", 1);
      part != 1) {
    spec.notes.push_back(
        "partial_rotary_factor is not used, as in mlx-lm, which rotates "
        "qk_rope_head_dim channels in this family");
  }
  for (BlockSpec& block : spec.blocks) {
    split_and_correct(config, block, spec);
  }
  set_next_layers_apart(config, spec);
  return spec;
}

}  // namespace pennyweight
