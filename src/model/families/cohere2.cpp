#include "core/error.h"
#include "model/config_keys.h"
#include "model/families/standard.h"

namespace pennyweight {

namespace {

// mlx-lm's, which are those of its class.
Json defaults() {
  return {
      {"hidden_size", 4096},
      {"head_dim", 128},
      {"num_hidden_layers", 32},
      {"intermediate_size", 14336},
      {"num_attention_heads", 32},
      {"num_key_value_heads", 8},
      {"rope_theta", 50000.0},
      {"vocab_size", 256000},
      {"layer_norm_eps", 1e-5},
      {"logit_scale", 0.0625},
      {"sliding_window", 4096},
      {"sliding_window_pattern", 4}};
}

void check(const JsonView& config) {
  check_standard_config(config);
  check_config_keys(
      config,
      with_standard_keys(
          {"attention_bias",
           "cache_implementation",
           "layer_norm_bias",
           "layer_norm_eps",
           "layer_switch",
           "layer_types",
           "logit_scale",
           "order_of_interleaved_layers",
           "position_embedding_type",
           "rotary_pct",
           "sliding_window",
           "sliding_window_pattern",
           "use_embedding_sharing",
           "use_gated_activation",
           "use_parallel_block",
           "use_parallel_embedding"}));
  if (!config.boolean_or("use_parallel_block", true) ||
      !config.boolean_or("use_gated_activation", true) ||
      config.number_or("rotary_pct", 1) != 1) {
    throw Error(
        ErrorCode::not_supported,
        "model",
        config.origin() +
            ": only parallel blocks with gated activations and whole heads "
            "rotated are known for this family");
  }
}

}  // namespace

// mlx_lm/models/cohere2.py: attention and MLP side by side behind one layer
// norm; rope on the layers with a window alone.
DecoderSpec read_cohere2(const FamilyInput& input) {
  Json full = with_defaults(input.config.json(), defaults());
  full["rms_norm_eps"] = full["layer_norm_eps"];
  const JsonView config(full, input.config.origin());
  check(config);
  DecoderSpec spec;
  auto shape = read_standard_shape(config);
  require_plain_heads(config, shape);
  shape.qkv_bias = config.boolean_or("attention_bias", false);
  shape.output_bias = shape.qkv_bias;
  shape.rope.traditional = true;
  shape.tied = true;
  read_rope(config, {}, true, shape.rope, spec);
  refuse_rope_scaling(config, shape.rope);
  fill_standard(shape, spec);
  const bool bias = config.boolean_or("layer_norm_bias", false);
  const auto window = config.integer("sliding_window", 1, int64_t{1} << 30);
  const auto pattern = config.integer("sliding_window_pattern", 1, 1 << 20);
  for (BlockSpec& block : spec.blocks) {
    block.parallel = true;
    block.attention.wide_scores = true;
    block.attention_norm->centered = true;
    block.attention_norm->bias = bias;
    block.mlp_norm.reset();
    if ((block.index + 1) % pattern == 0) {
      block.attention.rope.dims = 0;
    } else {
      block.attention.window = static_cast<int>(window);
    }
  }
  spec.final_norm.centered = true;
  spec.final_norm.bias = bias;
  spec.logit_scale = read_multiplier(config, "logit_scale");
  return spec;
}

}  // namespace pennyweight
