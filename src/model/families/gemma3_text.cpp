#include <cmath>

#include "core/error.h"
#include "kernels/types.h"
#include "model/config_keys.h"
#include "model/families/family.h"
#include "model/families/standard.h"

namespace pennyweight {

namespace {

// mlx-lm's, which are those of its class.
Json defaults() {
  return {
      {"hidden_size", 1152},
      {"num_hidden_layers", 26},
      {"intermediate_size", 6912},
      {"num_attention_heads", 4},
      {"head_dim", 256},
      {"rms_norm_eps", 1e-6},
      {"vocab_size", 262144},
      {"num_key_value_heads", 1},
      {"rope_theta", 1e6},
      {"rope_local_base_freq", 1e4},
      {"query_pre_attn_scalar", 256},
      {"sliding_window", 512},
      {"sliding_window_pattern", 6},
      {"max_position_embeddings", 32768}};
}

void check_layer_types(const JsonView& config, int pattern) {
  const Json* types = config.find("layer_types");
  if (!types) {
    return;
  }
  for (size_t i = 0; types->is_array() && i < types->size(); ++i) {
    const bool sliding = (i + 1) % static_cast<size_t>(pattern) != 0;
    if (types->at(i) != (sliding ? "sliding_attention" : "full_attention")) {
      throw Error(
          ErrorCode::not_supported,
          "model",
          config.origin() +
              ": \"layer_types\" is not the pattern of "
              "sliding_window_pattern, which is all that mlx-lm reads");
    }
  }
}

// The scale of mlx-lm is a bfloat16.
float embedding_scale(int64_t hidden) {
  kernels::BFloat16 scale;
  kernels::from_float(
      static_cast<float>(std::sqrt(static_cast<double>(hidden))), scale);
  return kernels::to_float(scale);
}

}  // namespace

// mlx_lm/models/gemma3_text.py
DecoderSpec read_gemma3_text(const FamilyInput& input) {
  const Json full = with_defaults(input.config.json(), defaults());
  const JsonView config(full, input.config.origin());
  check_standard_config(config, "gelu_pytorch_tanh", "hidden_activation");
  check_config_keys(
      config,
      with_standard_keys(
          {"hidden_activation",
           "rope_local_base_freq",
           "query_pre_attn_scalar",
           "sliding_window",
           "sliding_window_pattern",
           "layer_types"}));
  DecoderSpec spec;
  auto shape = read_standard_shape(config);
  shape.prefix = input.prefix;
  const auto window = config.integer("sliding_window", 1, int64_t{1} << 30);
  const auto pattern =
      static_cast<int>(config.integer("sliding_window_pattern", 1, 1 << 20));
  check_layer_types(config, pattern);
  shape.qk_norm = true;
  shape.tied = !input.has_tensor("lm_head.weight");
  read_rope(config, {}, true, shape.rope, spec);
  fill_standard(shape, spec);
  spec.embedding_scale = embedding_scale(shape.hidden);
  RopeSpec local;
  local.dims = shape.head_dim;
  local.base = config.number("rope_local_base_freq");
  fill_gemma_blocks(shape, config.number("query_pre_attn_scalar"), spec);
  for (BlockSpec& block : spec.blocks) {
    block.clips_residual = true;
    block.attention.q_norm->offset = 1;
    block.attention.k_norm->offset = 1;
    if ((block.index + 1) % pattern != 0) {
      block.attention.rope = local;
      block.attention.window = static_cast<int>(window);
    }
  }
  return spec;
}

}  // namespace pennyweight
