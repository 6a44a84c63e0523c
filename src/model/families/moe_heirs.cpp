// Families whose blocks are llama's with experts, each with its own names, its
// own router and its own rule of which layers have them.

#include <algorithm>

#include "core/error.h"
#include "core/json.h"
#include "model/families/moe.h"

namespace pennyweight {

namespace {

// The value of a key that holds a number, or a list with one for each kind of
// expert, of which the smallest or the largest (`last`) is taken.
int64_t first_or_last(
    const JsonView& config,
    const char* key,
    int64_t fallback,
    bool last) {
  const Json* value = config.find(key);
  if (!value || !value->is_array()) {
    return config.integer_or(key, fallback, 0, kMaxLayers);
  }
  const auto layers = config.numbers(key);
  if (layers.empty()) {
    return fallback;
  }
  const double chosen =
      last ? std::ranges::max(layers) : std::ranges::min(layers);
  return static_cast<int64_t>(chosen);
}

}  // namespace

// mlx_lm/models/deepseek.py, the first generation: a plain matrix routes.
DecoderSpec read_deepseek(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  note_activation(config, spec);
  auto shape = read_standard_shape(config);
  use_plain_heads(shape, spec);
  shape.qkv_bias = config.boolean_or("attention_bias", false);
  shape.output_bias = shape.qkv_bias;
  shape.tied = false;  // the class has a head of its own
  read_linear_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  count_as_read(
      config,
      {"moe_intermediate_size",
       "n_shared_experts",
       "num_experts_per_tok",
       "first_k_dense_replace",
       "moe_layer_freq"});
  if (!config.has("n_routed_experts")) {
    return spec;
  }
  const auto counts = read_expert_counts(config, "n_routed_experts");
  const auto wide = config.integer("moe_intermediate_size", 1, kMaxWidth);
  const auto shared = config.integer_or("n_shared_experts", 0, 0, 1 << 10);
  const auto dense =
      config.integer_or("first_k_dense_replace", 0, 0, kMaxLayers);
  const auto every = config.integer_or("moe_layer_freq", 1, 1, kMaxLayers);
  for (BlockSpec& block : spec.blocks) {
    if (block.index < dense || block.index % every != 0) {
      continue;
    }
    const std::string path = block.path + ".mlp";
    block.mlp.reset();
    block.moe = standard_moe(path, shape.hidden, wide, counts, spec);
    block.moe->router.packable = false;
    if (shared > 0) {
      block.mlp =
          standard_mlp(path + ".shared_experts", shape.hidden, wide * shared);
    }
  }
  return spec;
}

// mlx_lm/models/dots1.py: DeepSeek-V3's router over qwen3's attention.
DecoderSpec read_dots1(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  note_activation(config, spec);
  auto shape = read_standard_shape(config);
  shape.qk_norm = true;
  shape.mlp_bias = config.boolean_or("mlp_bias", false);
  count_as_read(
      config,
      {"attention_bias",
       "scoring_func",
       "norm_topk_prob",
       "routed_scaling_factor",
       "n_group",
       "topk_group"});
  shape.tied = read_tied(input, spec);
  read_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  const auto counts = read_expert_counts(config, "n_routed_experts");
  const auto wide = config.integer("moe_intermediate_size", 1, kMaxWidth);
  const auto shared = config.integer("n_shared_experts", 1, 1 << 10);
  const auto dense = config.integer("first_k_dense_replace", 0, kMaxLayers);
  for (BlockSpec& block : spec.blocks) {
    if (block.index < dense) {
      continue;
    }
    const std::string path = block.path + ".mlp";
    block.moe = standard_moe(
        path, shape.hidden, wide, counts, spec, {.stacks = "experts"});
    MoeSpec& moe = *block.moe;
    moe.router.packable = false;
    moe.scores = MoeSpec::Scores::sigmoid;
    moe.correction = ParameterSpec{
        path + ".gate.e_score_correction_bias", {int64_t{moe.count}}};
    moe.normalize = moe.chosen > 1 && config.boolean_or("norm_topk_prob", true);
    moe.scale =
        static_cast<float>(config.number_or("routed_scaling_factor", 1));
    read_groups(config, moe);
    block.mlp = standard_mlp(
        path + ".shared_experts", shape.hidden, wide * shared, shape.mlp_bias);
  }
  return spec;
}

// mlx_lm/models/ernie4_5_moe.py, which takes no note of the correction for the
// choice of experts, and drops it.
DecoderSpec read_ernie4_5_moe(const FamilyInput& input) {
  const JsonView& config = input.config;
  auto spec = read_ernie4_5(input);
  const bool bias = config.boolean_or("use_bias", false);
  count_as_read(config, {"moe_capacity", "moe_use_aux_free"});
  const auto counts = read_expert_counts(config, "moe_num_experts", "moe_k");
  auto wide = config.integer_or("moe_intermediate_size", 0, 0, kMaxWidth);
  wide = wide > 0 ? wide : config.integer("intermediate_size", 1, kMaxWidth);
  const auto shared =
      config.integer_or("moe_num_shared_experts", 0, 0, 1 << 10);
  const auto act = config.string_or("moe_gate_act", "softmax");
  if (act != "softmax" && act != "sigmoid") {
    throw not_supported_error(
        "model", config.origin() + ": moe_gate_act must be softmax or sigmoid");
  }
  const auto every = config.integer_or("moe_layer_interval", 1, 1, kMaxLayers);
  const auto begin = first_or_last(config, "moe_layer_start_index", 0, false);
  const auto end = first_or_last(
      config, "moe_layer_end_index", std::ssize(spec.blocks) - 1, true);
  for (BlockSpec& block : spec.blocks) {
    if ((block.index + 1) % every != 0 || block.index < begin ||
        block.index > end) {
      continue;
    }
    const std::string path = block.path + ".mlp";
    block.mlp.reset();
    block.moe = standard_moe(path, spec.hidden, wide, counts, spec);
    set_expert_biases(*block.moe, bias);
    block.moe->normalize = true;
    if (act == "sigmoid") {
      block.moe->scores = MoeSpec::Scores::sigmoid;
    }
    if (shared > 0) {
      block.mlp = standard_mlp(
          path + ".shared_experts", spec.hidden, wide * shared, bias);
    }
  }
  for (const char* part :
       {"mtp_block.",
        "mtp_linear_proj.",
        "mtp_hidden_norm.",
        "mtp_emb_norm."}) {
    spec.mtp.push_back(std::string("*") + part);
  }
  spec.dropped.push_back("*e_score_correction_bias");
  return spec;
}

// mlx_lm/models/granitemoe.py: granite with experts, whose gates and ups are
// above one another in the hub's tensors.
DecoderSpec read_granitemoe(const FamilyInput& input) {
  const JsonView& config = input.config;
  auto spec = read_granite(input);
  const auto counts = read_expert_counts(config, "num_local_experts");
  const auto wide = config.integer("intermediate_size", 1, kMaxWidth);
  for (BlockSpec& block : spec.blocks) {
    const std::string path = block.path + ".block_sparse_moe";
    block.mlp.reset();
    block.moe = standard_moe(
        path, spec.hidden, wide, counts, spec, {.router = "router.layer"});
    MoeSpec& moe = *block.moe;
    moe.scores = MoeSpec::Scores::chosen_softmax;
    moe.router.converts_as = make_quant_spec("affine", 8, 64);
    moe.experts.down.converts_as = make_quant_spec("affine", 8, 64);
    const TensorSource joined{.name = path + ".input_linear.weight"};
    auto gate = joined, up = joined;
    gate.end = static_cast<int>(wide);
    up.first = static_cast<int>(wide);
    spec.sources[moe.experts.gate.path + ".weight"] = gate;
    spec.sources[moe.experts.up.path + ".weight"] = up;
    spec.sources[moe.experts.down.path + ".weight"] =
        TensorSource{.name = path + ".output_linear.weight"};
  }
  return spec;
}

// mlx_lm/models/minimax.py: part of each head is rotated, queries and keys are
// normed over all heads together.
DecoderSpec read_minimax(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  note_activation(config, spec);
  auto shape = read_standard_shape(config);
  shape.qk_norm = config.boolean_or("use_qk_norm", true);
  shape.tied = read_tied(input, spec);
  read_plain_rope(config, shape.rope, spec);
  shape.rope.dims =
      static_cast<int>(config.integer("rotary_dim", 2, shape.head_dim)) / 2 * 2;
  count_as_read(config, {"shared_intermediate_size", "scoring_func"});
  fill_standard(shape, spec);
  const auto counts = read_expert_counts(config, "num_local_experts");
  for (BlockSpec& block : spec.blocks) {
    if (shape.qk_norm) {
      block.attention.q_norm->size = block.attention.q.out;
      block.attention.k_norm->size = block.attention.k.out;
    }
    const std::string path = block.path + ".block_sparse_moe";
    block.mlp.reset();
    block.moe = standard_moe(
        path,
        shape.hidden,
        shape.intermediate,
        counts,
        spec,
        {"w1", "w3", "w2"});
    MoeSpec& moe = *block.moe;
    moe.router.converts_as = make_quant_spec("affine", 8, 64);
    moe.scores = MoeSpec::Scores::sigmoid;
    moe.correction = ParameterSpec{
        path + ".e_score_correction_bias", {int64_t{moe.count}}, true};
    moe.normalize = true;
  }
  return spec;
}

}  // namespace pennyweight
