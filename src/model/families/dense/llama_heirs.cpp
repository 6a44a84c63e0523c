// Families that are llama but for which projections have biases, which keys say
// so, and a multiplier or a norm here and there.

#include <cmath>

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

}  // namespace

// mlx_lm/models/ernie4_5.py
DecoderSpec read_ernie4_5(const FamilyInput& input) {
  return read_standard(
      input,
      {.qkv_bias = "use_bias",
       .output_bias = "use_bias",
       .mlp_bias = "use_bias",
       .traditional = true,
       .rope = RopeFact::plain});
}

// mlx_lm/models/glm.py: gate and up in one matrix; whole heads are rotated.
DecoderSpec read_glm(const FamilyInput& input) {
  auto spec = read_standard(
      input,
      {.qkv_bias = "attention_bias",
       .traditional = true,
       .rope = RopeFact::plain});
  for (BlockSpec& block : spec.blocks) {
    fuse_gate_up(*block.mlp, block.path + ".mlp");
  }
  return spec;
}

// mlx_lm/models/glm4.py: norms before and behind, gate and up in one matrix,
// half of each head rotated.
DecoderSpec read_glm4(const FamilyInput& input) {
  auto spec = read_standard(
      input,
      {.qkv_bias = "attention_bias",
       .head = HeadFact::own,
       .traditional = {"rope_traditional", true},
       .part = 1,
       .rope = RopeFact::plain});
  for (BlockSpec& block : spec.blocks) {
    block.attention_post = block_norm(block, ".post_self_attn_layernorm", spec);
    block.mlp_post = block_norm(block, ".post_mlp_layernorm", spec);
    fuse_gate_up(*block.mlp, block.path + ".mlp");
  }
  return spec;
}

// mlx_lm/models/granite.py: llama with four multipliers.
DecoderSpec read_granite(const FamilyInput& input) {
  const JsonView& config = input.config;
  auto spec = read_standard(
      input,
      {.plain_heads = true,
       .qkv_bias = "attention_bias",
       .output_bias = "attention_bias",
       .mlp_bias = "mlp_bias"});
  spec.embedding_scale = read_multiplier(config, "embedding_multiplier");
  spec.logit_scale = 1 / read_multiplier(config, "logits_scaling");
  for (BlockSpec& block : spec.blocks) {
    block.attention.scale = read_multiplier(config, "attention_multiplier");
    block.residual_scale = read_multiplier(config, "residual_multiplier");
    // The class asks mlx_lm.convert for these widths.
    block.attention.o.converts_as = make_quant_spec("affine", 8, 64);
    block.mlp->down.converts_as = make_quant_spec("affine", 8, 64);
  }
  if (spec.head) {
    spec.head->converts_as = make_quant_spec("affine", 8, 64);
  }
  return spec;
}

// mlx_lm/models/helium.py, which wants an lm_head whatever the config says.
DecoderSpec read_helium(const FamilyInput& input) {
  auto spec = read_standard(
      input,
      {.plain_heads = true,
       .qkv_bias = "attention_bias",
       .mlp_bias = "mlp_bias",
       .traditional = true,
       .rope = RopeFact::plain});
  if (!spec.head) {
    refuse_config(
        input.config,
        "the embedding is the head, too (tie_word_embeddings): mlx-lm can't "
        "load this family so; give it an lm_head.weight and "
        "tie_word_embeddings = false");
  }
  return spec;
}

// mlx_lm/models/internlm3.py
DecoderSpec read_internlm3(const FamilyInput& input) {
  require_scaling(input.config, "rope_type", {"linear", "dynamic"});
  auto spec = read_standard(
      input,
      {.plain_heads = true,
       .qkv_bias = "qkv_bias",
       .output_bias = "qkv_bias",
       .mlp_bias = "bias",
       .traditional = "rope_traditional"});
  spec.dropped.push_back("*attention.rope.inv_freq");
  return spec;
}

// mlx_lm/models/mimo.py
DecoderSpec read_mimo(const FamilyInput& input) {
  count_as_read(input.config, {"num_nextn_predict_layers"});
  auto spec = read_standard(
      input,
      {.plain_heads = true,
       .qkv_bias = true,
       .traditional = "rope_traditional"});
  spec.mtp.push_back("model.mtp_layers.");
  return spec;
}

// mlx_lm/models/minicpm.py: three multipliers.
DecoderSpec read_minicpm(const FamilyInput& input) {
  const JsonView& config = input.config;
  auto spec = read_standard(
      input, {.plain_heads = true, .traditional = "rope_traditional"});
  refuse_tied(config, !spec.head);
  spec.embedding_scale = read_multiplier(config, "scale_emb");
  spec.logit_scale = read_multiplier(config, "dim_model_base") /
      static_cast<float>(spec.hidden);
  const double depth = read_multiplier(config, "scale_depth");
  for (BlockSpec& block : spec.blocks) {
    block.residual_scale =
        static_cast<float>(depth / std::sqrt(double(spec.blocks.size())));
  }
  return spec;
}

// mlx_lm/models/ministral3.py: llama whose queries grow with their position.
DecoderSpec read_ministral3(const FamilyInput& input) {
  const auto growth = read_query_growth(input.config);
  // Llama reads these; this class knows no biases.
  Json own = growth.config;
  for (const char* key : {"attention_bias", "mlp_bias", "rope_traditional"}) {
    own.erase(key);
  }
  auto spec = read_llama(input.like(own));
  for (BlockSpec& block : spec.blocks) {
    block.attention.growth_beta = growth.beta;
    block.attention.growth_positions = growth.positions;
  }
  return spec;
}

// mlx_lm/models/nanbeige.py, of models that go through their layers once.
DecoderSpec read_nanbeige(const FamilyInput& input) {
  const JsonView& config = input.config;
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
  return read_telechat3(input);
}

// mlx_lm/models/qwen2.py
DecoderSpec read_qwen2(const FamilyInput& input) {
  input.config.integer("num_key_value_heads", 1, kMaxWidth);
  return read_standard(
      input,
      {.plain_heads = true,
       .qkv_bias = true,
       .traditional = "rope_traditional"});
}

// mlx_lm/models/qwen3.py
DecoderSpec read_qwen3(const FamilyInput& input) {
  count_as_read(input.config, {"rope_parameters"});  // see class_config()
  return read_standard(input, {.qk_norm = true});
}

// mlx_lm/models/seed_oss.py
DecoderSpec read_seed_oss(const FamilyInput& input) {
  auto spec = read_standard(
      input,
      {.qkv_bias = "attention_bias",
       .output_bias = "attention_out_bias",
       .mlp_bias = "mlp_bias",
       .traditional = "rope_traditional"});
  refuse_tied(input.config, !spec.head);
  return spec;
}

// mlx_lm/models/smollm3.py: llama, with layers that have no rotary embedding.
DecoderSpec read_smollm3(const FamilyInput& input) {
  const JsonView& config = input.config;
  auto spec = read_llama(input);
  const size_t layers = spec.blocks.size();
  const Json* list =
      find_layer_list(config, "no_rope_layers", std::ssize(spec.blocks));
  const auto interval = static_cast<size_t>(
      config.integer_or("no_rope_layer_interval", 4, 1, 1 << 20));
  for (size_t i = 0; i < layers; ++i) {
    // Despite its name, 1 stands for a layer that has one.
    const bool rotates = list ? list->at(i) != 0 && list->at(i) != false
                              : (i + 1) % interval != 0;
    if (!rotates) {
      spec.blocks[i].attention.rope.dims = 0;
    }
  }
  return spec;
}

// mlx_lm/models/telechat3.py
DecoderSpec read_telechat3(const FamilyInput& input) {
  return read_standard(
      input,
      {.qkv_bias = "attention_bias",
       .output_bias = "attention_bias",
       .mlp_bias = "mlp_bias"});
}

}  // namespace pennyweight
