// Qwen's models of text, images and video, of which mlx-lm, and so this
// program, has the language model.

#include "core/json.h"
#include "model/families/standard.h"
#include "model/families/wrapped.h"

namespace pennyweight {

namespace {

// The spec of the text_config, or of a config without one, as before
// transformers 4.52.
DecoderSpec read_qwen_vl_text(
    const FamilyInput& input,
    const char* model_class,
    DecoderSpec (*read)(const FamilyInput&)) {
  const Json* text = input.config.find("text_config");
  const auto& origin = input.config.origin();
  auto spec = read_language_model(
      input,
      text ? JsonView(*text, origin + ": text_config")
           : JsonView(*input.given, origin),
      model_class,
      read,
      [&](const std::string& name) { return found_name(input, name); });
  if (text) {
    nest_patch(*text, spec);
  }
  carry_parts(input, {"visual.", "vision_tower."}, spec);
  return spec;
}

// Adds sources for experts in stacks that are multiplied from the right,
// [experts, in, out], with gate beside up.
void add_turned_experts(
    const FamilyInput& input,
    const MoeSpec& moe,
    DecoderSpec& spec) {
  const auto& path = moe.experts.gate.path;
  const auto experts = path.substr(0, path.find("switch_mlp.")) + "experts.";
  const auto fused = found_name(input, experts + "gate_up_proj");
  if (!input.has_tensor(fused)) {
    return;
  }
  split_gate_up(
      moe.experts,
      {.name = fused, .vectors = true, .transposed = true},
      found_name(input, experts + "down_proj"),
      spec);
}

}  // namespace

// mlx_lm/models/qwen2_vl.py, which also stands for qwen2_5_vl.
DecoderSpec read_qwen2_vl(const FamilyInput& input) {
  return read_qwen_vl_text(input, "qwen2", read_qwen2);
}

// mlx_lm/models/qwen3_vl.py
DecoderSpec read_qwen3_vl(const FamilyInput& input) {
  return read_qwen_vl_text(input, "qwen3", read_qwen3);
}

// mlx_lm/models/qwen3_vl_moe.py
DecoderSpec read_qwen3_vl_moe(const FamilyInput& input) {
  if (!input.config.find("text_config")) {
    throw wrong_config(input.config, "\"text_config\" is missing");
  }
  auto spec = read_qwen_vl_text(input, "qwen3_moe", read_qwen3_moe);
  if (!spec.head) {
    refuse_config(
        input.config,
        "the embedding is the head, too (tie_word_embeddings), with which "
        "mlx-lm can't load this family");
  }
  for (const BlockSpec& block : spec.blocks) {
    if (block.moe) {
      add_turned_experts(input, *block.moe, spec);
    }
  }
  return spec;
}

}  // namespace pennyweight
