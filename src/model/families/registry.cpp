#include <algorithm>

#include "core/json.h"
#include "model/config/class_config.h"
#include "model/families/family.h"

namespace pennyweight {

const std::vector<Family>& families() {
  static const std::vector<Family> list = {
      {"afmoe", "afmoe", read_afmoe},
      {"apertus", "apertus", read_apertus},
      {"bailing_moe", "bailing_moe", read_bailing_moe},
      {"cohere", "cohere", read_cohere},
      {"cohere2", "cohere2", read_cohere2},
      {"deepseek", "deepseek", read_deepseek},
      {"deepseek_v2", "deepseek_v2", read_deepseek_v2},
      {"deepseek_v3", "deepseek_v3", read_deepseek_v3},
      {"deepseek_v32", "deepseek_v32", read_deepseek_v32},
      {"dots1", "dots1", read_dots1},
      {"ernie4_5", "ernie4_5", read_ernie4_5},
      {"ernie4_5_moe", "ernie4_5_moe", read_ernie4_5_moe},
      {"exaone", "exaone", read_exaone},
      {"exaone4", "exaone4", read_exaone4},
      {"exaone_moe", "exaone_moe", read_exaone_moe},
      {"falcon_h1", "falcon_h1", read_falcon_h1},
      {"gemma", "gemma", read_gemma},
      {"gemma2", "gemma2", read_gemma2},
      {"gemma3", "gemma3", read_gemma3},
      {"gemma3_text", "gemma3_text", read_gemma3_text},
      {"gemma4", "gemma4", read_gemma4},
      {"gemma4_text", "gemma4_text", read_gemma4_text},
      {"glm", "glm", read_glm},
      {"glm4", "glm4", read_glm4},
      {"glm4_moe", "glm4_moe", read_glm4_moe},
      {"glm4_moe_lite", "glm4_moe_lite", read_glm4_moe_lite},
      {"glm_moe_dsa", "glm_moe_dsa", read_deepseek_v32},
      {"gpt_neox", "gpt_neox", read_gpt_neox},
      {"gpt_oss", "gpt_oss", read_gpt_oss},
      {"gptj", "gptj", read_gptj},
      {"granite", "granite", read_granite},
      {"granitemoe", "granitemoe", read_granitemoe},
      {"granitemoehybrid", "granitemoehybrid", read_granitemoehybrid},
      {"helium", "helium", read_helium},
      {"hunyuan_v1_dense", "hunyuan_v1_dense", read_hunyuan_v1_dense},
      {"internlm2", "internlm2", read_internlm2},
      {"internlm3", "internlm3", read_internlm3},
      {"kimi_k25", "kimi_k25", read_kimi_k25},
      {"laguna", "laguna", read_laguna},
      {"lfm2", "lfm2", read_lfm2},
      {"lfm2_moe", "lfm2_moe", read_lfm2_moe},
      {"lille-130m", "lille-130m", read_lille_130m},
      {"llama", "llama", read_llama},
      {"llava", "mistral3", read_mistral3},
      {"mamba2", "mamba2", read_mamba2},
      {"mellum", "mellum", read_mellum},
      {"mimo", "mimo", read_mimo},
      {"minicpm", "minicpm", read_minicpm},
      {"minicpm3", "minicpm3", read_minicpm3},
      {"minimax", "minimax", read_minimax},
      {"ministral3", "ministral3", read_ministral3},
      {"mistral", "llama", read_mistral},
      {"mistral3", "mistral3", read_mistral3},
      {"mistral4", "mistral4", read_mistral4},
      {"mixtral", "mixtral", read_mixtral},
      {"muse_glimmer", "muse_glimmer", read_muse_glimmer},
      {"nanbeige", "nanbeige", read_nanbeige},
      {"nemotron", "nemotron", read_nemotron},
      {"nemotron_h", "nemotron_h", read_nemotron_h},
      {"olmo2", "olmo2", read_olmo2},
      {"olmo3", "olmo3", read_olmo3},
      {"olmoe", "olmoe", read_olmoe},
      {"openelm", "openelm", read_openelm},
      {"phi", "phi", read_phi},
      {"phi3", "phi3", read_phi3},
      {"phimoe", "phimoe", read_phimoe},
      {"qwen", "qwen", read_qwen},
      {"qwen2", "qwen2", read_qwen2},
      {"qwen2_moe", "qwen2_moe", read_qwen2_moe},
      {"qwen2_vl", "qwen2_vl", read_qwen2_vl},
      {"qwen3", "qwen3", read_qwen3},
      {"qwen3_5", "qwen3_5", read_qwen3_5},
      {"qwen3_5_moe", "qwen3_5_moe", read_qwen3_5},
      {"qwen3_moe", "qwen3_moe", read_qwen3_moe},
      {"qwen3_next", "qwen3_next", read_qwen3_next},
      {"qwen3_vl", "qwen3_vl", read_qwen3_vl},
      {"qwen3_vl_moe", "qwen3_vl_moe", read_qwen3_vl_moe},
      {"seed_oss", "seed_oss", read_seed_oss},
      {"smollm3", "smollm3", read_smollm3},
      {"solar_open", "solar_open", read_glm4_moe},
      {"stablelm", "stablelm", read_stablelm},
      {"starcoder2", "starcoder2", read_starcoder2},
      {"telechat3", "telechat3", read_telechat3},
      {"youtu_llm", "youtu_llm", read_youtu_llm}};
  return list;
}

DecoderSpec read_as(
    const char* model_class,
    DecoderSpec (*read)(const FamilyInput& input),
    FamilyInput input) {
  const ModelClass& type = pennyweight::model_class(model_class);
  const std::string origin = input.config.origin();
  const Json given = input.config.json();
  const auto config = class_config(input.config, type);
  std::set<std::string> reads;
  input.given = &given;
  input.config = JsonView(config.values, origin).recorded(reads);
  auto spec = read(input);
  Json patch = config.patch;
  patch.update(spec.config_patch);
  spec.config_patch = std::move(patch);
  spec.notes.insert(
      spec.notes.begin(), config.notes.begin(), config.notes.end());
  const bool windows = std::ranges::any_of(
      spec.blocks,
      [](const BlockSpec& block) { return block.attention.window > 0; });
  if (!windows && !config.window_note.empty()) {
    spec.notes.push_back(config.window_note);
  }
  check_reads(config, type, reads, spec.config_patch, origin);
  return spec;
}

}  // namespace pennyweight
