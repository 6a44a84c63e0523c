#include <set>

#include "model/families/moe.h"

namespace pennyweight {

// mlx_lm/models/qwen3_moe.py
DecoderSpec read_qwen3_moe(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  note_activation(config, spec);
  count_as_read(config, {"norm_topk_prob"});
  auto shape = read_standard_shape(config);
  shape.prefix = input.prefix;
  shape.qk_norm = true;
  shape.tied = read_tied(input, spec);
  read_plain_rope(config, shape.rope, spec);
  fill_standard(shape, spec);
  const auto counts = read_expert_counts(config, "num_experts");
  const auto wide = config.integer("moe_intermediate_size", 1, kMaxWidth);
  const auto step = config.integer("decoder_sparse_step", 1, 1 << 20);
  std::set<double> dense;
  for (double layer : config.numbers("mlp_only_layers")) {
    dense.insert(layer);
  }
  for (BlockSpec& block : spec.blocks) {
    if (dense.contains(block.index) || (block.index + 1) % step != 0) {
      continue;
    }
    block.mlp.reset();
    block.moe =
        standard_moe(block.path + ".mlp", shape.hidden, wide, counts, spec);
    block.moe->normalize = config.boolean_or("norm_topk_prob", false);
    block.moe->router.converts_as = make_quant_spec("affine", 8, 64);
  }
  return spec;
}

}  // namespace pennyweight
