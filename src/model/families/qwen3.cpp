#include "model/families/family.h"
#include "model/families/standard.h"

namespace pennyweight {

// mlx_lm/models/qwen3.py
DecoderSpec read_qwen3(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  note_activation(config, spec);
  auto shape = read_standard_shape(config);
  shape.prefix = input.prefix;
  shape.qk_norm = true;
  shape.tied = read_tied(input, spec);
  count_as_read(config, {"rope_parameters"});  // see class_config()
  read_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  return spec;
}

}  // namespace pennyweight
