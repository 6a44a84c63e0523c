#include "core/error.h"
#include "model/families/moe.h"

namespace pennyweight {

// mlx_lm/models/mixtral.py
DecoderSpec read_mixtral(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  note_activation(config, spec);
  auto shape = read_standard_shape(config);
  use_plain_heads(shape, spec);
  shape.rope.traditional = config.boolean_or("rope_traditional", false);
  shape.tied = read_tied(input, spec);
  read_plain_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  const auto counts = read_expert_counts(config, "num_local_experts");
  for (BlockSpec& block : spec.blocks) {
    block.mlp.reset();
    block.moe = standard_moe(
        block.path + ".block_sparse_moe",
        shape.hidden,
        shape.intermediate,
        counts,
        spec,
        {"w1", "w3", "w2"});
    block.moe->scores = MoeSpec::Scores::chosen_softmax;
  }
  return spec;
}

}  // namespace pennyweight
