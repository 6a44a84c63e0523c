#include "core/error.h"
#include "model/config_keys.h"
#include "model/families/moe.h"

namespace pennyweight {

// mlx_lm/models/mixtral.py
DecoderSpec read_mixtral(const FamilyInput& input) {
  const JsonView& config = input.config;
  check_standard_config(config);
  check_config_keys(
      config,
      with_standard_keys(
          {"num_local_experts",
           "num_experts_per_tok",
           "rope_traditional",
           "sliding_window"}));
  DecoderSpec spec;
  auto shape = read_standard_shape(config);
  require_plain_heads(config, shape);
  shape.rope.traditional = config.boolean_or("rope_traditional", false);
  shape.tied = read_tied(input, false, spec);
  read_rope(config, 1000000, true, shape.rope, spec);
  refuse_rope_scaling(config, shape.rope);
  note_window(config, spec);
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
