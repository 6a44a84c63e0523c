#include "model/families/family.h"

namespace pennyweight {

const std::vector<Family>& families() {
  static const std::vector<Family> list = {
      {"llama", read_llama},
      {"mistral", read_mistral},
      {"qwen2", read_qwen2},
      {"qwen3", read_qwen3}};
  return list;
}

}  // namespace pennyweight
