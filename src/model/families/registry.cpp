#include "model/families/family.h"

namespace pennyweight {

const std::vector<Family>& families() {
  static const std::vector<Family> list = {
      {"gemma3_text", read_gemma3_text},
      {"granite", read_granite},
      {"llama", read_llama},
      {"mistral", read_mistral},
      {"olmo2", read_olmo2},
      {"qwen2", read_qwen2},
      {"qwen3", read_qwen3},
      {"smollm3", read_smollm3}};
  return list;
}

}  // namespace pennyweight
