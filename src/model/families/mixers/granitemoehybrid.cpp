#include "model/families/mixers/mixers.h"
#include "model/families/moe.h"

namespace pennyweight {

namespace {

constexpr float kLeastStep = 0.001f;
constexpr float kMostStep = 100;

ScanShape read_granite_scan(const JsonView& config, int64_t hidden) {
  auto shape = read_scan_shape(config, hidden, kMambaKeys);
  read_time_limit(config, kLeastStep, kMostStep, shape);
  return shape;
}

// Adds the sources of an MLP or of stacks, whose gate and up stand above one
// another in one matrix on the hub.
void split_hub_matrix(
    const std::string& hub,
    const MlpSpec& mlp,
    DecoderSpec& spec) {
  split_gate_up(
      mlp,
      {.name = hub + "input_linear.weight"},
      hub + "output_linear.weight",
      spec);
}

void fill_granite_experts(
    const JsonView& config,
    const StandardShape& shape,
    BlockSpec& block,
    DecoderSpec& spec) {
  const std::string path = block.path + ".block_sparse_moe";
  MoeSpec& moe = put_experts(
      {.counts = read_expert_counts(config, "num_local_experts"),
       .wide = shape.intermediate,
       .path = ".block_sparse_moe",
       .names = {.router = "router.layer"}},
      block,
      spec);
  moe.router.converts_as = router_spec();
  moe.scores = MoeSpec::Scores::chosen_softmax;
  split_hub_matrix(path + ".", moe.experts, spec);
  const std::string shared = block.path + ".shared_mlp.";
  const auto wide = config.integer("shared_intermediate_size", 1, kMaxWidth);
  block.mlp = standard_mlp(block.path, shape.hidden, wide);
  block.mlp->gate_up =
      LinearSpec{shared + "input_linear", 2 * wide, shape.hidden};
  block.mlp->down.path = shared + "output_linear";
}

}  // namespace

// mlx_lm/models/granitemoehybrid.py: granite's multipliers; scans, with
// attention on some layers; experts with a shared one, or plain MLPs.
DecoderSpec read_granitemoehybrid(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  count_as_read(
      config,
      {"num_experts_per_tok",
       "shared_intermediate_size",
       "mlp_bias",
       "time_step_limit",
       "mamba_n_heads",
       "mamba_d_head",
       "mamba_proj_bias",
       "mamba_d_state",
       "mamba_d_conv",
       "mamba_n_groups",
       "mamba_conv_bias"});
  auto shape = read_standard_shape(
      input,
      {.plain_heads = true,
       .qkv_bias = "attention_bias",
       .output_bias = "attention_bias",
       .mlp_bias = "mlp_bias",
       .rope = RopeFact::own},
      spec);
  read_hybrid_rope(config, shape.rope, spec);
  if (config.string_or("position_embedding_type", "rope") == "nope") {
    shape.rope.dims = 0;
  }
  fill_standard(shape, spec);
  spec.embedding_scale = read_multiplier(config, "embedding_multiplier");
  spec.logit_scale = 1 / read_multiplier(config, "logits_scaling");
  const float scale = read_multiplier(config, "attention_multiplier");
  const float residual = read_multiplier(config, "residual_multiplier");
  const bool experts =
      config.integer_or("num_local_experts", 0, 0, 1 << 14) > 0;
  const auto types = read_layer_names(config, "layer_types", shape.layers);
  if (types.empty()) {
    throw wrong_config(config, "\"layer_types\" is missing");
  }
  for (BlockSpec& block : spec.blocks) {
    const auto& type = types.at(static_cast<size_t>(block.index));
    block.residual_scale = residual;
    block.attention.scale = scale;
    if (type == "mamba") {
      const auto own = read_granite_scan(config, shape.hidden);
      const std::string path = block.path + ".mamba.";
      auto scan = make_scan(input, path, own, spec);
      scan.norm = scan_norm(path, own, shape.eps);
      block.attention = scan_layer(path, own, std::move(scan));
    } else if (type != "attention") {
      refuse_config(
          config,
          "layer type " + one_line(type, 40) +
              " is not known; mlx-lm's class has mamba and attention");
    }
    if (experts) {
      fill_granite_experts(config, shape, block, spec);
    } else {
      split_hub_matrix(block.path + ".shared_mlp.", *block.mlp, spec);
    }
  }
  return spec;
}

}  // namespace pennyweight
