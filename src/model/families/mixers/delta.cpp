#include "model/families/mixers/delta.h"

#include <algorithm>

namespace pennyweight {

namespace {

struct DeltaShape {
  int key_heads = 0;
  int heads = 0;
  int key_dim = 0;
  int value_dim = 0;
  int width = 0;
};

DeltaShape read_delta_shape(const JsonView& config) {
  const auto size = [&](const char* key) {
    return static_cast<int>(config.integer(key, 1, 1 << 14));
  };
  DeltaShape shape{
      size("linear_num_key_heads"),
      size("linear_num_value_heads"),
      size("linear_key_head_dim"),
      size("linear_value_head_dim"),
      size("linear_conv_kernel_dim")};
  if (shape.heads % shape.key_heads != 0) {
    throw wrong_config(
        config,
        "linear_num_value_heads must be a multiple of linear_num_key_heads");
  }
  return shape;
}

void fill_layer(
    const DeltaShape& shape,
    bool fused,
    const DecoderSpec& spec,
    BlockSpec& block) {
  const std::string path = block.path + ".linear_attn.";
  const int64_t hidden = spec.hidden;
  const int64_t keys = int64_t{shape.key_heads} * shape.key_dim;
  const int64_t values = int64_t{shape.heads} * shape.value_dim;
  DeltaSpec delta;
  if (fused) {
    delta.qkvz =
        LinearSpec{path + "in_proj_qkvz", 2 * keys + 2 * values, hidden};
    delta.ba = LinearSpec{path + "in_proj_ba", 2 * shape.heads, hidden};
  } else {
    delta.qkv = LinearSpec{path + "in_proj_qkv", 2 * keys + values, hidden};
    delta.z = LinearSpec{path + "in_proj_z", values, hidden};
    delta.b = LinearSpec{path + "in_proj_b", shape.heads, hidden};
    delta.a = LinearSpec{path + "in_proj_a", shape.heads, hidden};
  }
  delta.conv = {path + "conv1d.weight", {2 * keys + values, shape.width, 1}};
  // mlx-lm protects it in qwen3_5, and not in qwen3_next.
  delta.a_log = {path + "A_log", {shape.heads}, !fused};
  delta.dt_bias = {path + "dt_bias", {shape.heads}};
  delta.norm = {path + "norm", shape.value_dim, spec.final_norm.eps};
  delta.key_heads = shape.key_heads;
  delta.heads = shape.heads;
  delta.key_dim = shape.key_dim;
  delta.value_dim = shape.value_dim;
  AttentionSpec attention;
  attention.delta = std::move(delta);
  attention.o = {path + "out_proj", hidden, values};
  attention.heads = shape.heads;
  attention.head_dim = shape.value_dim;
  block.attention = std::move(attention);
}

}  // namespace

void fill_delta_layers(const JsonView& config, bool fused, DecoderSpec& spec) {
  const auto delta = read_delta_shape(config);
  const auto interval =
      config.integer_or("full_attention_interval", 4, 1, kMaxLayers);
  for (BlockSpec& block : spec.blocks) {
    const bool full = (block.index + 1) % interval == 0;
    if (full) {
      block.attention.q.out *= 2;
      block.attention.gated = true;
    } else {
      fill_layer(delta, fused, spec, block);
    }
  }
}

void fill_delta_experts(
    const JsonView& config,
    bool everywhere,
    DecoderSpec& spec) {
  count_as_read(
      config,
      {"norm_topk_prob",
       "num_experts_per_tok",
       "moe_intermediate_size",
       "shared_expert_intermediate_size",
       "decoder_sparse_step",
       "mlp_only_layers"});
  if (config.integer_or("num_experts", 0, 0, 1 << 14) == 0) {
    return;
  }
  const ExpertLayer layer{
      .counts = read_expert_counts(config, "num_experts"),
      .wide = config.integer("moe_intermediate_size", 1, kMaxWidth),
      .shared = config.integer("shared_expert_intermediate_size", 1, kMaxWidth),
      .shared_path = ".shared_expert"};
  const bool normalize = config.boolean_or("norm_topk_prob", false);
  const auto step =
      everywhere ? 1 : config.integer_or("decoder_sparse_step", 1, 1, 1 << 20);
  std::vector<double> dense;
  if (!everywhere && config.has("mlp_only_layers")) {
    dense = config.numbers("mlp_only_layers");
  }
  for (BlockSpec& block : spec.blocks) {
    if (std::ranges::find(dense, block.index) != dense.end() ||
        (block.index + 1) % step != 0) {
      continue;
    }
    MoeSpec& moe = put_experts(layer, block, spec);
    moe.normalize = normalize;
    moe.router.converts_as = router_spec();
    moe.shared_gate = LinearSpec{
        .path = block.path + ".mlp.shared_expert_gate",
        .out = 1,
        .in = spec.hidden,
        .converts_as = router_spec()};
  }
}

void add_delta_sources(
    const std::function<std::string(const std::string&)>& from,
    DecoderSpec& spec) {
  const auto add_one = [&](const NormSpec& norm) {
    TensorSource source{.name = from(norm.path + ".weight")};
    source.add = 1;
    spec.sources.insert_or_assign(norm.path + ".weight", std::move(source));
  };
  for (const BlockSpec& block : spec.blocks) {
    for (const NormSpec& norm : list_norms(block)) {
      const auto& delta = block.attention.delta;
      if (!delta || norm.path != delta->norm.path) {
        add_one(norm);
      }
    }
    if (const auto& delta = block.attention.delta) {
      TensorSource source{.name = from(delta->conv.name)};
      source.width_first = true;
      spec.sources.insert_or_assign(delta->conv.name, std::move(source));
    }
  }
  add_one(spec.final_norm);
}

}  // namespace pennyweight
