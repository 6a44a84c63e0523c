#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/json.h"
#include "model/spec/decoder_spec.h"

namespace pennyweight {

/// What a family reads its spec from.
struct FamilyInput {
  /// As the family's class in mlx-lm has it: see class_config.h.
  JsonView config;
  std::function<bool(const std::string& tensor)> has_tensor;
  std::function<std::vector<std::string>(const std::string& prefix)>
      tensors_under;
  /// Empty for a tensor that is not there.
  std::function<mx::Shape(const std::string& tensor)> shape_of;
  /// Of all paths; names that has_tensor is asked for are without it.
  std::string prefix{};
  /// The config before the class's defaults were added.
  const Json* given = nullptr;
  /// Weight files are known to be missing, which may hold what seems absent.
  bool lacks_files = false;
};

/// A family turns a config into a spec, as the class of mlx-lm does.
struct Family {
  const char* model_type;
  const char* model_class;  // in class_keys.h's table
  DecoderSpec (*read)(const FamilyInput& input);
};

/// One a file in families/; the registry lists them.
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

const std::vector<Family>& families();

/// The spec that `read` makes of input.config as the class has it. Its patch
/// and notes hold what that took. not_supported Error for a key that the
/// class reads and `read` does not.
DecoderSpec read_as(
    const char* model_class,
    DecoderSpec (*read)(const FamilyInput& input),
    FamilyInput input);

}  // namespace pennyweight
