#include "model/families/family.h"

namespace pennyweight {

const std::vector<Family>& families() {
  static const std::vector<Family> list = {
      {"cohere2", read_cohere2},
      {"deepseek_v2", read_deepseek_v2},
      {"deepseek_v3", read_deepseek_v3},
      {"gemma2", read_gemma2},
      {"gemma3", read_gemma3},
      {"gemma3_text", read_gemma3_text},
      {"glm4", read_glm4},
      {"glm4_moe", read_glm4_moe},
      {"gpt_oss", read_gpt_oss},
      {"granite", read_granite},
      {"llama", read_llama},
      {"llava", read_mistral3},
      {"ministral3", read_ministral3},
      {"mistral", read_mistral},
      {"mistral3", read_mistral3},
      {"mixtral", read_mixtral},
      {"olmo2", read_olmo2},
      {"olmoe", read_olmoe},
      {"phi3", read_phi3},
      {"qwen2", read_qwen2},
      {"qwen2_moe", read_qwen2_moe},
      {"qwen3", read_qwen3},
      {"qwen3_5", read_qwen3_5},
      {"qwen3_5_moe", read_qwen3_5},
      {"qwen3_moe", read_qwen3_moe},
      {"qwen3_next", read_qwen3_next},
      {"smollm3", read_smollm3}};
  return list;
}

}  // namespace pennyweight
