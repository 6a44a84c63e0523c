#include "core/error.h"
#include "model/config_keys.h"
#include "model/families/family.h"
#include "model/families/standard.h"

namespace pennyweight {

// mlx_lm/models/qwen3.py
DecoderSpec read_qwen3(const FamilyInput& input) {
  const JsonView& config = input.config;
  check_standard_config(config);
  check_config_keys(
      config,
      with_standard_keys(
          {"layer_types", "sliding_window", "use_sliding_window"}));
  for (const char* key :
       {"num_key_value_heads",
        "head_dim",
        "max_position_embeddings",
        "tie_word_embeddings"}) {
    if (!config.has(key)) {
      throw Error(
          ErrorCode::corrupt,
          "model",
          config.origin() + ": \"" + key + "\" is missing");
    }
  }
  DecoderSpec spec;
  auto shape = read_standard_shape(config);
  shape.qk_norm = true;
  shape.tied = read_tied(input, true, spec);
  note_unused_windows(config, spec);
  read_rope(config, {}, false, shape.rope, spec);
  fill_standard(shape, spec);
  return spec;
}

}  // namespace pennyweight
