#include "model/families/family.h"

namespace pennyweight {

// mlx-lm's MODEL_REMAPPING runs mistral as llama.
DecoderSpec read_mistral(const FamilyInput& input) {
  return read_llama(input);
}

}  // namespace pennyweight
