#include <limits>

#include "core/json.h"
#include "model/families/mixers/mixers.h"

namespace pennyweight {

namespace {

constexpr float kBlockEps = 1e-5f;  // of MLX's RMSNorm, where no other is said

ScanShape read_mamba2_shape(const JsonView& config) {
  auto shape = read_scan_shape(
      config,
      config.integer("hidden_size", 1, kMaxWidth),
      {"num_heads",
       "head_dim",
       "n_groups",
       config.has("ssm_state_size") ? "ssm_state_size" : "state_size",
       "conv_kernel",
       "use_bias",
       "use_conv_bias"});
  read_time_limit(config, 0, std::numeric_limits<float>::infinity(), shape);
  return shape;
}

}  // namespace

// mlx_lm/models/mamba2.py: a scan a block, and no MLP.
DecoderSpec read_mamba2(const FamilyInput& input) {
  const JsonView& config = input.config;
  count_as_read(
      config,
      {"intermediate_size",
       "max_position_embeddings",
       "ssm_state_size",
       "state_size",
       "time_step_rank"});
  const auto shape = read_mamba2_shape(config);
  const double eps = config.number("layer_norm_epsilon");
  DecoderSpec spec;
  // The class wants these, which transformers leaves out, and uses neither.
  const std::pair<const char*, Json> wanted[] = {
      {"intermediate_size", int64_t{shape.heads} * shape.head_dim},
      {"time_step_rank", "auto"}};
  for (const auto& [key, value] : wanted) {
    if (!config.has(key)) {
      spec.config_patch[key] = value;
    }
  }
  spec.hidden = shape.hidden;
  spec.vocab = config.integer("vocab_size", 1, kMaxWidth * 8);
  spec.embedding = "backbone.embeddings";
  const auto layers = config.integer("num_hidden_layers", 1, kMaxLayers);
  for (int i = 0; i < layers; ++i) {
    BlockSpec block;
    block.index = i;
    block.path = "backbone.layers." + std::to_string(i);
    const std::string path = block.path + ".mixer.";
    block.attention_norm =
        NormSpec{block.path + ".norm", shape.hidden, kBlockEps};
    auto scan = make_scan(input, path, shape, spec);
    scan.norm = scan_norm(path, shape, static_cast<float>(eps));
    block.attention = scan_layer(path, shape, std::move(scan));
    spec.blocks.push_back(std::move(block));
  }
  spec.final_norm = {"backbone.norm_f", shape.hidden, static_cast<float>(eps)};
  if (!config.boolean_or("tie_word_embeddings", true)) {
    spec.head = LinearSpec{"lm_head", spec.vocab, shape.hidden};
  }
  return spec;
}

}  // namespace pennyweight
