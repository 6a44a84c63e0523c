#include "model/families/family.h"

namespace pennyweight {

const std::vector<Family>& families() {
  static const std::vector<Family> list = {
      {"deepseek_v2", read_deepseek_v2},
      {"deepseek_v3", read_deepseek_v3},
      {"gemma3_text", read_gemma3_text},
      {"glm4_moe", read_glm4_moe},
      {"granite", read_granite},
      {"llama", read_llama},
      {"mistral", read_mistral},
      {"mixtral", read_mixtral},
      {"olmo2", read_olmo2},
      {"olmoe", read_olmoe},
      {"qwen2", read_qwen2},
      {"qwen2_moe", read_qwen2_moe},
      {"qwen3", read_qwen3},
      {"qwen3_moe", read_qwen3_moe},
      {"smollm3", read_smollm3}};
  return list;
}

}  // namespace pennyweight
