// Families whose blocks are llama's with experts, each with its own names, its
// own router and its own rule of which layers have them.

#include <algorithm>

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
  auto spec = read_standard(
      input,
      {.plain_heads = true,
       .qkv_bias = "attention_bias",
       .output_bias = "attention_bias",
       .head = HeadFact::own,
       .rope = RopeFact::linear});
  count_as_read(
      config,
      {"moe_intermediate_size",
       "n_shared_experts",
       "num_experts_per_tok",
       "first_k_dense_replace",
       "moe_layer_freq"});
  add_deepseek_experts(config, spec);
  for (BlockSpec& block : spec.blocks) {
    if (block.moe) {
      block.moe->router.packable = false;
    }
  }
  return spec;
}

// mlx_lm/models/dots1.py: DeepSeek-V3's router over qwen3's attention.
DecoderSpec read_dots1(const FamilyInput& input) {
  const JsonView& config = input.config;
  count_as_read(
      config,
      {"attention_bias",
       "scoring_func",
       "norm_topk_prob",
       "routed_scaling_factor",
       "n_group",
       "topk_group"});
  auto spec = read_standard(input, {.mlp_bias = "mlp_bias", .qk_norm = true});
  const auto counts = read_expert_counts(config, "n_routed_experts");
  const auto wide = config.integer("moe_intermediate_size", 1, kMaxWidth);
  const auto shared = config.integer("n_shared_experts", 1, 1 << 10);
  const auto dense = config.integer("first_k_dense_replace", 0, kMaxLayers);
  for (BlockSpec& block : spec.blocks) {
    if (block.index < dense) {
      continue;
    }
    MoeSpec& moe = put_experts(
        {.counts = counts,
         .wide = wide,
         .shared = wide * shared,
         .shared_bias = block.mlp->up.bias,
         .names = {.stacks = "experts"}},
        block,
        spec);
    moe.router.packable = false;
    moe.scores = MoeSpec::Scores::sigmoid;
    correct_choice(block.path + ".mlp.gate.e_score_correction_bias", moe);
    moe.correction->keeps_type = false;
    read_router_scale(config, moe);
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
    refuse_config(config, "moe_gate_act must be softmax or sigmoid");
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
    MoeSpec& moe = put_experts(
        {.counts = counts,
         .wide = wide,
         .shared = wide * shared,
         .bias = bias,
         .shared_bias = bias},
        block,
        spec);
    moe.normalize = true;
    if (act == "sigmoid") {
      moe.scores = MoeSpec::Scores::sigmoid;
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
    MoeSpec& moe = put_experts(
        {.counts = counts,
         .wide = wide,
         .path = ".block_sparse_moe",
         .names = {.router = "router.layer"}},
        block,
        spec);
    moe.scores = MoeSpec::Scores::chosen_softmax;
    moe.router.converts_as = router_spec();
    moe.experts.down.converts_as = router_spec();
    const std::string path = block.path + ".block_sparse_moe.";
    split_gate_up(
        moe.experts,
        {.name = path + "input_linear.weight"},
        path + "output_linear.weight",
        spec);
  }
  return spec;
}

// mlx_lm/models/minimax.py: part of each head is rotated, queries and keys are
// normed over all heads together.
DecoderSpec read_minimax(const FamilyInput& input) {
  const JsonView& config = input.config;
  auto spec = read_standard(
      input, {.qk_norm = {"use_qk_norm", true}, .rope = RopeFact::plain});
  count_as_read(config, {"shared_intermediate_size", "scoring_func"});
  const auto counts = read_expert_counts(config, "num_local_experts");
  const auto& head = spec.blocks.front().attention;
  const auto rotated = config.integer("rotary_dim", 2, head.head_dim);
  if (head.q_norm) {
    widen_head_norms(spec);
  }
  for (BlockSpec& block : spec.blocks) {
    block.attention.rope.dims = static_cast<int>(rotated) / 2 * 2;
    MoeSpec& moe = put_experts(
        {.counts = counts,
         .path = ".block_sparse_moe",
         .names = {"w1", "w3", "w2"}},
        block,
        spec);
    moe.router.converts_as = router_spec();
    moe.scores = MoeSpec::Scores::sigmoid;
    correct_choice(
        block.path + ".block_sparse_moe.e_score_correction_bias", moe);
    moe.normalize = true;
  }
  return spec;
}

// mlx_lm/models/mixtral.py
DecoderSpec read_mixtral(const FamilyInput& input) {
  auto spec = read_standard(
      input,
      {.plain_heads = true,
       .traditional = "rope_traditional",
       .rope = RopeFact::plain});
  const auto counts = read_expert_counts(input.config, "num_local_experts");
  for (BlockSpec& block : spec.blocks) {
    MoeSpec& moe = put_experts(
        {.counts = counts,
         .path = ".block_sparse_moe",
         .names = {"w1", "w3", "w2"}},
        block,
        spec);
    moe.scores = MoeSpec::Scores::chosen_softmax;
  }
  return spec;
}

// mlx_lm/models/olmoe.py: queries and keys are normed over all heads together.
DecoderSpec read_olmoe(const FamilyInput& input) {
  const JsonView& config = input.config;
  auto spec = read_standard(
      input,
      {.qkv_bias = "attention_bias",
       .output_bias = "attention_bias",
       .qk_norm = true,
       .traditional = "rope_traditional"});
  widen_head_norms(spec);
  const ExpertLayer layer{
      .counts = read_expert_counts(config, "num_experts"),
      .bias = config.boolean_or("mlp_bias", false)};
  for (BlockSpec& block : spec.blocks) {
    put_experts(layer, block, spec).normalize =
        config.boolean_or("norm_topk_prob", false);
  }
  return spec;
}

// mlx_lm/models/qwen2_moe.py: every layer has experts, whose scores are never
// made to add up to 1, and a shared one behind a gate of its own. The class
// takes no scaling but a linear one, of which it makes nothing.
DecoderSpec read_qwen2_moe(const FamilyInput& input) {
  const JsonView& config = input.config;
  count_as_read(config, {"tie_word_embeddings"});  // it never ties
  require_scaling(config, "type", {"linear"});
  auto spec = read_standard(
      input,
      {.plain_heads = true,
       .qkv_bias = true,
       .head = HeadFact::own,
       .traditional = "rope_traditional",
       .rope = RopeFact::plain});
  const ExpertLayer layer{
      .counts = read_expert_counts(config, "num_experts"),
      .wide = config.integer("moe_intermediate_size", 1, kMaxWidth),
      .shared = config.integer("shared_expert_intermediate_size", 1, kMaxWidth),
      .shared_path = ".shared_expert"};
  for (BlockSpec& block : spec.blocks) {
    put_experts(layer, block, spec).shared_gate = LinearSpec{
        .path = block.path + ".mlp.shared_expert_gate",
        .out = 1,
        .in = spec.hidden};
  }
  return spec;
}

// mlx_lm/models/qwen3_moe.py
DecoderSpec read_qwen3_moe(const FamilyInput& input) {
  const JsonView& config = input.config;
  count_as_read(config, {"norm_topk_prob"});
  auto spec = read_standard(input, {.qk_norm = true, .rope = RopeFact::plain});
  const ExpertLayer layer{
      .counts = read_expert_counts(config, "num_experts"),
      .wide = config.integer("moe_intermediate_size", 1, kMaxWidth)};
  const auto step = config.integer("decoder_sparse_step", 1, 1 << 20);
  const auto dense = config.numbers("mlp_only_layers");
  for (BlockSpec& block : spec.blocks) {
    if (std::ranges::find(dense, block.index) != dense.end() ||
        (block.index + 1) % step != 0) {
      continue;
    }
    MoeSpec& moe = put_experts(layer, block, spec);
    moe.normalize = config.boolean_or("norm_topk_prob", false);
    moe.router.converts_as = router_spec();
  }
  return spec;
}

// mlx_lm/models/glm4_moe.py
DecoderSpec read_glm4_moe(const FamilyInput& input) {
  const JsonView& config = input.config;
  count_as_read(
      config,
      {"tie_word_embeddings",
       "n_group",
       "topk_group",
       "norm_topk_prob",
       "routed_scaling_factor",
       "scoring_func",
       "topk_method"});
  auto spec = read_standard(
      input,
      {.qkv_bias = "attention_bias",
       .qk_norm = "use_qk_norm",
       .head = HeadFact::own,
       .part = 1,
       .rope = RopeFact::plain});
  const auto wide = config.integer("moe_intermediate_size", 1, kMaxWidth);
  const ExpertLayer layer{
      .counts = read_expert_counts(config, "n_routed_experts"),
      .wide = wide,
      .shared = wide * config.integer_or("n_shared_experts", 0, 0, 1 << 10)};
  const auto dense = config.integer("first_k_dense_replace", 0, kMaxLayers);
  for (BlockSpec& block : spec.blocks) {
    if (block.index >= dense) {
      read_corrected_router(
          config, block.path + ".mlp", put_experts(layer, block, spec));
    }
  }
  // The layer that predicts further tokens.
  spec.mtp.push_back(
      "model.layers." + std::to_string(spec.blocks.size()) + ".");
  return spec;
}

}  // namespace pennyweight
