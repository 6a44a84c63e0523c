#include <cmath>
#include <set>

#include "core/json.h"
#include "model/families/mixers/mixers.h"
#include "model/families/moe.h"

namespace pennyweight {

namespace {

// The numbers of the layers with attention; the others have a short
// convolution.
std::set<int> full_layers(const JsonView& config, int layers) {
  std::set<int> full;
  const auto types = read_layer_names(config, "layer_types", layers);
  if (config.has("full_attn_idxs")) {
    for (double layer : config.numbers("full_attn_idxs")) {
      full.insert(static_cast<int>(layer));
    }
  } else {
    for (int i = 0; i < layers; ++i) {
      if (!types.empty() && types[static_cast<size_t>(i)] == "full_attention") {
        full.insert(i);
      }
    }
  }
  if (full.empty() || *full.begin() < 0 || *full.rbegin() >= layers) {
    throw wrong_config(
        config,
        "\"full_attn_idxs\" or \"layer_types\" must name layers with "
        "full_attention, without which mlx-lm can't run this family");
  }
  return full;
}

void fill_convolution(
    const JsonView& config,
    const FamilyInput& input,
    BlockSpec& block,
    DecoderSpec& spec) {
  const std::string path = block.path + ".conv.";
  const bool bias = config.boolean_or("conv_bias", false);
  ShortConvSpec conv{
      .in = {path + "in_proj", 3 * spec.hidden, spec.hidden, bias},
      .conv = {
          path + "conv.weight",
          {spec.hidden, config.integer("conv_L_cache", 1, 1 << 10), 1}}};
  if (bias) {
    conv.conv_bias = ParameterSpec{path + "conv.bias", {spec.hidden}};
  }
  add_convolution_source(input, conv.conv.name, spec);
  AttentionSpec attention;
  attention.short_conv = std::move(conv);
  attention.o = {path + "out_proj", spec.hidden, spec.hidden, bias};
  block.attention = std::move(attention);
}

// Fills all but the MLPs, whose names and experts are left to the caller.
void fill_blocks(const FamilyInput& input, int64_t wide, DecoderSpec& spec) {
  Json values = input.config.json();
  values["intermediate_size"] = wide;
  const auto own = input.like(values);
  const JsonView& config = own.config;
  auto shape = read_standard_shape(
      own,
      {.activation = nullptr,
       .eps = "norm_eps",
       .plain_heads = true,
       .qk_norm = true,
       .head = HeadFact::tied,
       .rope = RopeFact::own,
       .final_norm_path = "model.embedding_norm"},
      spec);
  read_hybrid_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  const auto full = full_layers(config, shape.layers);
  for (BlockSpec& block : spec.blocks) {
    block.attention_norm->path = block.path + ".operator_norm";
    block.mlp_norm->path = block.path + ".ffn_norm";
    if (!full.contains(block.index)) {
      fill_convolution(config, input, block, spec);
      continue;
    }
    const std::string path = block.path + ".self_attn.";
    block.attention.o.path = path + "out_proj";
    block.attention.q_norm->path = path + "q_layernorm";
    block.attention.k_norm->path = path + "k_layernorm";
  }
}

int64_t mlp_width(const JsonView& config) {
  const char* key =
      config.has("block_ff_dim") ? "block_ff_dim" : "intermediate_size";
  auto wide = config.integer(key, 1, kMaxWidth);
  count_as_read(
      config,
      {"intermediate_size",
       "block_ffn_dim_multiplier",
       "block_multiple_of",
       "block_auto_adjust_ff_dim"});
  if (!config.boolean_or("block_auto_adjust_ff_dim", false)) {
    return wide;
  }
  wide = static_cast<int64_t>(double(2 * wide) / 3);
  if (config.has("block_ffn_dim_multiplier")) {
    wide = static_cast<int64_t>(
        config.number("block_ffn_dim_multiplier") * double(wide));
  }
  const auto step = config.integer("block_multiple_of", 1, kMaxWidth);
  wide = (wide + step - 1) / step * step;
  if (wide < 1 || wide > kMaxWidth) {
    throw wrong_config(config, "\"block_ffn_dim_multiplier\" is out of range");
  }
  return wide;
}

}  // namespace

// mlx_lm/models/lfm2.py: gated short convolutions, and attention every few
// layers.
DecoderSpec read_lfm2(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  fill_blocks(input, mlp_width(config), spec);
  if (!config.has("block_dim")) {
    spec.config_patch["block_dim"] = spec.hidden;
  } else if (config.integer("block_dim", 1, kMaxWidth) != spec.hidden) {
    throw wrong_config(config, "\"block_dim\" must be hidden_size");
  }
  for (BlockSpec& block : spec.blocks) {
    const std::string path = block.path + ".feed_forward.";
    block.mlp->gate.path = path + "w1";
    block.mlp->up.path = path + "w3";
    block.mlp->down.path = path + "w2";
  }
  return spec;
}

namespace {

void fill_experts(
    const FamilyInput& input,
    const std::string& path,
    BlockSpec& block,
    DecoderSpec& spec) {
  const JsonView& config = input.config;
  const bool renamed = input.has_tensor(path + ".experts.0.w1.weight");
  MoeSpec& moe = put_experts(
      {.counts = read_expert_counts(config, "num_experts"),
       .wide = config.integer("moe_intermediate_size", 1, kMaxWidth),
       .path = ".feed_forward",
       .names = renamed ? ExpertNames{"w1", "w3", "w2"} : ExpertNames{}},
      block,
      spec);
  moe.scores = MoeSpec::Scores::sigmoid;
  moe.router.converts_as = router_spec();
  moe.normalize = config.boolean_or("norm_topk_prob", false);
  moe.normalize_eps = 1e-6f;
  moe.scale = static_cast<float>(config.number_or("routed_scaling_factor", 1));
  if (config.boolean_or("use_expert_bias", false)) {
    correct_choice(path + ".expert_bias", moe);
  }
}

}  // namespace

// mlx_lm/models/lfm2_moe.py
DecoderSpec read_lfm2_moe(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  fill_blocks(input, config.integer("intermediate_size", 1, kMaxWidth), spec);
  count_as_read(
      config,
      {"moe_intermediate_size",
       "norm_topk_prob",
       "num_experts",
       "num_experts_per_tok",
       "routed_scaling_factor",
       "use_expert_bias"});
  const auto dense = config.integer("num_dense_layers", 0, kMaxLayers);
  for (BlockSpec& block : spec.blocks) {
    const std::string path = block.path + ".feed_forward";
    if (block.index >= dense) {
      fill_experts(input, path, block, spec);
      continue;
    }
    const auto rename = [&](LinearSpec& linear,
                            const char* to,
                            const char* hub) {
      linear.path = path + to;
      for (const char* suffix : {".weight", ".scales", ".biases"}) {
        spec.sources.emplace(
            linear.path + suffix, TensorSource{.name = path + hub + suffix});
      }
    };
    rename(block.mlp->gate, ".gate_proj", ".w1");
    rename(block.mlp->up, ".up_proj", ".w3");
    rename(block.mlp->down, ".down_proj", ".w2");
  }
  return spec;
}

}  // namespace pennyweight
