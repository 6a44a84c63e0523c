// Families that differ from llama only in which projections have biases, in the
// keys that say so, and in some multipliers.

#include <cmath>

#include "core/error.h"
#include "core/json.h"
#include "model/families/standard.h"

namespace pennyweight {

namespace {

// Refuses a tied embedding: the class multiplies by the stored matrix, which it
// can't do once that is packed.
void refuse_tied(const JsonView& config, bool tied) {
  if (tied) {
    refuse_config(
        config,
        "the embedding is the head, too (tie_word_embeddings): mlx-lm can't "
        "run this family so once it is quantized; give it an lm_head.weight "
        "and tie_word_embeddings = false");
  }
}

StandardShape read_shape(const FamilyInput& input, DecoderSpec& spec) {
  note_activation(input.config, spec);
  auto shape = read_standard_shape(input.config);
  shape.prefix = input.prefix;
  return shape;
}

}  // namespace

// mlx_lm/models/ernie4_5.py
DecoderSpec read_ernie4_5(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  auto shape = read_shape(input, spec);
  shape.qkv_bias = config.boolean_or("use_bias", false);
  shape.output_bias = shape.qkv_bias;
  shape.mlp_bias = shape.qkv_bias;
  shape.rope.traditional = true;
  shape.tied = read_tied(input, spec);
  read_plain_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  return spec;
}

// mlx_lm/models/glm.py: gate and up in one matrix; whole heads are rotated.
DecoderSpec read_glm(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  auto shape = read_shape(input, spec);
  shape.qkv_bias = config.boolean_or("attention_bias", false);
  shape.rope.traditional = true;
  shape.tied = read_tied(input, spec);
  read_plain_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  for (BlockSpec& block : spec.blocks) {
    fuse_gate_up(*block.mlp, block.path + ".mlp");
  }
  return spec;
}

// mlx_lm/models/helium.py, which wants an lm_head whatever the config says.
DecoderSpec read_helium(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  auto shape = read_shape(input, spec);
  use_plain_heads(shape, spec);
  shape.qkv_bias = config.boolean_or("attention_bias", false);
  shape.mlp_bias = config.boolean_or("mlp_bias", false);
  shape.rope.traditional = true;
  shape.tied = read_tied(input, spec);
  if (shape.tied) {
    refuse_config(
        config,
        "the embedding is the head, too (tie_word_embeddings): mlx-lm can't "
        "load this family so; give it an lm_head.weight and "
        "tie_word_embeddings = false");
  }
  read_plain_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  return spec;
}

// mlx_lm/models/internlm3.py
DecoderSpec read_internlm3(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  auto shape = read_shape(input, spec);
  use_plain_heads(shape, spec);
  shape.qkv_bias = config.boolean_or("qkv_bias", false);
  shape.output_bias = shape.qkv_bias;
  shape.mlp_bias = config.boolean_or("bias", false);
  shape.rope.traditional = config.boolean_or("rope_traditional", false);
  shape.tied = read_tied(input, spec);
  if (const auto scaling = config.object("rope_scaling");
      scaling && !scaling->json().empty()) {
    const auto type = scaling->string_or("rope_type", "");
    if (!scaling->has("factor") || (type != "linear" && type != "dynamic")) {
      refuse_config(
          config,
          "rope_scaling wants a factor and a rope_type of linear or dynamic, "
          "without which mlx-lm can't load this family");
    }
  }
  read_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  spec.dropped.push_back("*attention.rope.inv_freq");
  return spec;
}

// mlx_lm/models/mimo.py
DecoderSpec read_mimo(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  auto shape = read_shape(input, spec);
  use_plain_heads(shape, spec);
  shape.qkv_bias = true;
  shape.rope.traditional = config.boolean_or("rope_traditional", false);
  shape.tied = read_tied(input, spec);
  read_rope(config, shape.rope, spec);
  count_as_read(config, {"num_nextn_predict_layers"});
  fill_standard(shape, spec);
  spec.mtp.push_back("model.mtp_layers.");
  return spec;
}

// mlx_lm/models/minicpm.py: three multipliers.
DecoderSpec read_minicpm(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  auto shape = read_shape(input, spec);
  use_plain_heads(shape, spec);
  shape.rope.traditional = config.boolean_or("rope_traditional", false);
  shape.tied = read_tied(input, spec);
  refuse_tied(config, shape.tied);
  read_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  spec.embedding_scale = read_multiplier(config, "scale_emb");
  spec.logit_scale = read_multiplier(config, "dim_model_base") /
      static_cast<float>(shape.hidden);
  const double depth = read_multiplier(config, "scale_depth");
  for (BlockSpec& block : spec.blocks) {
    block.residual_scale = static_cast<float>(depth / std::sqrt(shape.layers));
  }
  return spec;
}

// mlx_lm/models/nanbeige.py, of models that go through their layers once.
DecoderSpec read_nanbeige(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  auto shape = read_shape(input, spec);
  const Json* losses = config.find("loop_loss_weights");
  const bool again = losses && losses->is_array() && !losses->empty();
  if (again || config.integer_or("num_loops", 1, 1, 1 << 20) != 1) {
    refuse_config(
        config,
        "the model goes through its layers more than once (num_loops, "
        "loop_loss_weights), which is not supported");
  }
  for (const char* key :
       {"enable_double_loop_split",
        "loop_share_kv",
        "enable_depth_attention"}) {
    if (config.boolean_or(key, false)) {
      refuse_config(
          config, std::string(key) + " is not supported, as in mlx-lm");
    }
  }
  count_as_read(config, {"skip_loop_final_norm"});
  shape.qkv_bias = config.boolean_or("attention_bias", false);
  shape.output_bias = shape.qkv_bias;
  shape.mlp_bias = config.boolean_or("mlp_bias", false);
  shape.tied = read_tied(input, spec);
  read_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  return spec;
}

// mlx_lm/models/seed_oss.py
DecoderSpec read_seed_oss(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  auto shape = read_shape(input, spec);
  shape.qkv_bias = config.boolean_or("attention_bias", false);
  shape.output_bias = config.boolean_or("attention_out_bias", false);
  shape.mlp_bias = config.boolean_or("mlp_bias", false);
  shape.rope.traditional = config.boolean_or("rope_traditional", false);
  shape.tied = read_tied(input, spec);
  refuse_tied(config, shape.tied);
  read_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  return spec;
}

// mlx_lm/models/telechat3.py
DecoderSpec read_telechat3(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  auto shape = read_shape(input, spec);
  shape.qkv_bias = config.boolean_or("attention_bias", false);
  shape.output_bias = shape.qkv_bias;
  shape.mlp_bias = config.boolean_or("mlp_bias", false);
  shape.tied = read_tied(input, spec);
  read_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  return spec;
}

}  // namespace pennyweight
