#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/json.h"
#include "model/spec/decoder_spec.h"

namespace pennyweight {

/// What a family reads its spec from: the config, and the names and shapes of
/// the checkpoint's tensors.
struct FamilyInput {
  /// The config with the keys and defaults of the family's class in mlx-lm
  /// (class_config.h).
  JsonView config;
  std::function<bool(const std::string& tensor)> has_tensor;
  std::function<std::vector<std::string>(const std::string& prefix)>
      tensors_under;
  /// The shape of a tensor; empty for one that is not there.
  std::function<mx::Shape(const std::string& tensor)> shape_of;
  /// What all paths of the spec begin with. Names that has_tensor is asked for
  /// are without it.
  std::string prefix{};
  /// The config before the class's defaults were added.
  const Json* given = nullptr;
  /// Whether weight files are missing, which may hold tensors that seem absent.
  bool lacks_files = false;
};

/// A family: it turns a config into the spec of what a class of mlx-lm
/// computes.
struct Family {
  const char* model_type;
  const char* model_class;  // in class_keys.h's table
  DecoderSpec (*read)(const FamilyInput& input);
};

/// The families' functions, which stand in files of families/. registry.cpp
/// lists them with their names.
DecoderSpec read_afmoe(const FamilyInput& input);
DecoderSpec read_apertus(const FamilyInput& input);
DecoderSpec read_bailing_moe(const FamilyInput& input);
DecoderSpec read_cohere(const FamilyInput& input);
DecoderSpec read_cohere2(const FamilyInput& input);
DecoderSpec read_deepseek(const FamilyInput& input);
DecoderSpec read_deepseek_v2(const FamilyInput& input);
DecoderSpec read_deepseek_v3(const FamilyInput& input);
DecoderSpec read_deepseek_v32(const FamilyInput& input);
DecoderSpec read_dots1(const FamilyInput& input);
DecoderSpec read_ernie4_5(const FamilyInput& input);
DecoderSpec read_ernie4_5_moe(const FamilyInput& input);
DecoderSpec read_exaone(const FamilyInput& input);
DecoderSpec read_exaone4(const FamilyInput& input);
DecoderSpec read_exaone_moe(const FamilyInput& input);
DecoderSpec read_falcon_h1(const FamilyInput& input);
DecoderSpec read_gemma(const FamilyInput& input);
DecoderSpec read_gemma2(const FamilyInput& input);
DecoderSpec read_gemma3(const FamilyInput& input);
DecoderSpec read_gemma3_text(const FamilyInput& input);
DecoderSpec read_gemma4(const FamilyInput& input);
DecoderSpec read_gemma4_text(const FamilyInput& input);
DecoderSpec read_glm(const FamilyInput& input);
DecoderSpec read_glm4(const FamilyInput& input);
DecoderSpec read_glm4_moe(const FamilyInput& input);
DecoderSpec read_glm4_moe_lite(const FamilyInput& input);
DecoderSpec read_gpt_neox(const FamilyInput& input);
DecoderSpec read_gpt_oss(const FamilyInput& input);
DecoderSpec read_gptj(const FamilyInput& input);
DecoderSpec read_granite(const FamilyInput& input);
DecoderSpec read_granitemoe(const FamilyInput& input);
DecoderSpec read_granitemoehybrid(const FamilyInput& input);
DecoderSpec read_helium(const FamilyInput& input);
DecoderSpec read_hunyuan_v1_dense(const FamilyInput& input);
DecoderSpec read_internlm2(const FamilyInput& input);
DecoderSpec read_internlm3(const FamilyInput& input);
DecoderSpec read_kimi_k25(const FamilyInput& input);
DecoderSpec read_laguna(const FamilyInput& input);
DecoderSpec read_lfm2(const FamilyInput& input);
DecoderSpec read_lfm2_moe(const FamilyInput& input);
DecoderSpec read_lille_130m(const FamilyInput& input);
DecoderSpec read_llama(const FamilyInput& input);
DecoderSpec read_mamba2(const FamilyInput& input);
DecoderSpec read_mellum(const FamilyInput& input);
DecoderSpec read_mimo(const FamilyInput& input);
DecoderSpec read_minicpm(const FamilyInput& input);
DecoderSpec read_minicpm3(const FamilyInput& input);
DecoderSpec read_minimax(const FamilyInput& input);
DecoderSpec read_ministral3(const FamilyInput& input);
DecoderSpec read_mistral(const FamilyInput& input);
DecoderSpec read_mistral3(const FamilyInput& input);
DecoderSpec read_mistral4(const FamilyInput& input);
DecoderSpec read_mixtral(const FamilyInput& input);
DecoderSpec read_muse_glimmer(const FamilyInput& input);
DecoderSpec read_nanbeige(const FamilyInput& input);
DecoderSpec read_nemotron(const FamilyInput& input);
DecoderSpec read_nemotron_h(const FamilyInput& input);
DecoderSpec read_olmo2(const FamilyInput& input);
DecoderSpec read_olmo3(const FamilyInput& input);
DecoderSpec read_olmoe(const FamilyInput& input);
DecoderSpec read_openelm(const FamilyInput& input);
DecoderSpec read_phi(const FamilyInput& input);
DecoderSpec read_phi3(const FamilyInput& input);
DecoderSpec read_phimoe(const FamilyInput& input);
DecoderSpec read_qwen(const FamilyInput& input);
DecoderSpec read_qwen2(const FamilyInput& input);
DecoderSpec read_qwen2_moe(const FamilyInput& input);
DecoderSpec read_qwen2_vl(const FamilyInput& input);
DecoderSpec read_qwen3(const FamilyInput& input);
DecoderSpec read_qwen3_5(const FamilyInput& input);
DecoderSpec read_qwen3_moe(const FamilyInput& input);
DecoderSpec read_qwen3_next(const FamilyInput& input);
DecoderSpec read_qwen3_vl(const FamilyInput& input);
DecoderSpec read_qwen3_vl_moe(const FamilyInput& input);
DecoderSpec read_seed_oss(const FamilyInput& input);
DecoderSpec read_smollm3(const FamilyInput& input);
DecoderSpec read_stablelm(const FamilyInput& input);
DecoderSpec read_starcoder2(const FamilyInput& input);
DecoderSpec read_telechat3(const FamilyInput& input);
DecoderSpec read_youtu_llm(const FamilyInput& input);

/// All families, by model_type.
const std::vector<Family>& families();

/// Gives input.config the keys and defaults of the class, and has `read` make a
/// spec of it. The spec's config_patch and notes get those of the config, too.
/// not_supported Error for a key that the class reads and `read` does not.
DecoderSpec read_as(
    const char* model_class,
    DecoderSpec (*read)(const FamilyInput& input),
    FamilyInput input);

}  // namespace pennyweight
