#include "core/error.h"
#include "model/families/mixers.h"
#include "model/families/moe.h"

namespace pennyweight {

namespace {

constexpr float kLeastStep = 0.001f;
constexpr float kMostStep = 100;

ScanShape read_granite_scan(const JsonView& config, int64_t hidden) {
  ScanShape shape;
  shape.hidden = hidden;
  shape.heads = read_scan_size(config, "mamba_n_heads");
  shape.head_dim = read_scan_size(config, "mamba_d_head");
  shape.groups = read_scan_size(config, "mamba_n_groups");
  shape.state = read_scan_size(config, "mamba_d_state");
  shape.width = read_scan_size(config, "mamba_d_conv");
  shape.bias = config.boolean_or("mamba_proj_bias", false);
  shape.conv_bias = config.boolean_or("mamba_conv_bias", false);
  read_time_limit(config, kLeastStep, kMostStep, shape);
  return shape;
}

// Adds the sources of an MLP or of stacks, whose gate and up stand above one
// another in one matrix on the hub.
void split_hub_matrix(
    const std::string& hub,
    const MlpSpec& mlp,
    DecoderSpec& spec) {
  const int half = static_cast<int>(mlp.up.out);
  TensorSource gate{.name = hub + "input_linear.weight"};
  auto up = gate;
  gate.end = half;
  up.first = half;
  spec.sources.insert_or_assign(mlp.gate.path + ".weight", gate);
  spec.sources.insert_or_assign(mlp.up.path + ".weight", up);
  spec.sources.insert_or_assign(
      mlp.down.path + ".weight",
      TensorSource{.name = hub + "output_linear.weight"});
}

void fill_granite_experts(
    const JsonView& config,
    const StandardShape& shape,
    BlockSpec& block,
    DecoderSpec& spec) {
  const std::string path = block.path + ".block_sparse_moe";
  block.moe = standard_moe(
      path,
      shape.hidden,
      shape.intermediate,
      read_expert_counts(config, "num_local_experts"),
      spec);
  auto& moe = *block.moe;
  moe.router.path = path + ".router.layer";
  moe.router.converts_as = make_quant_spec("affine", 8, 64);
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
  note_activation(config, spec);
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
  auto shape = read_standard_shape(config);
  use_plain_heads(shape, spec);
  shape.qkv_bias = config.boolean_or("attention_bias", false);
  shape.output_bias = shape.qkv_bias;
  shape.mlp_bias = config.boolean_or("mlp_bias", false);
  shape.tied = read_tied(input, spec);
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
    throw corrupt_error(
        "model", config.origin() + ": \"layer_types\" is missing");
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
      throw not_supported_error(
          "model",
          config.origin() + ": layer type " + one_line(type, 40) +
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
