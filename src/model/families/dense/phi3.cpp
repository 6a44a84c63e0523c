#include "core/json.h"
#include "model/families/standard.h"

namespace pennyweight {

namespace {

// Reads rope_scaling; its lengths stand beside it in the config, and not in it.
void read_scaling(const JsonView& config, RopeSpec& rope, DecoderSpec& spec) {
  count_as_read(
      config, {"original_max_position_embeddings", "max_position_embeddings"});
  const auto given = config.object("rope_scaling");
  if (!given || given->json().empty()) {
    return;
  }
  if (!given->has("long_factor") || !given->has("type")) {
    refuse_config(
        config,
        "rope_scaling without \"type\" and \"long_factor\", which mlx-lm "
        "cannot "
        "load for this family");
  }
  Json scaling = given->json();
  const auto type = given->string("type");
  if (type == "longrope" || type == "su") {
    scaling["type"] = "longrope";
    scaling["original_max_position_embeddings"] = config.integer_or(
        "original_max_position_embeddings", 4096, 1, int64_t{1} << 30);
  } else if (type != "linear") {
    spec.notes.push_back(
        "rope_scaling of type " + one_line(type, 40) +
        " is not used, as in mlx-lm");
    return;
  }
  const int positions = read_positions(config, 131072);
  const std::string origin = config.origin() + ": rope_scaling";
  read_rope_scaling(JsonView(scaling, origin), positions, rope, spec.notes);
}

}  // namespace

// mlx_lm/models/phi3.py: llama with q, k, v in one matrix and gate, up in one.
DecoderSpec read_phi3(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  auto shape = read_standard_shape(
      input,
      {.plain_heads = true,
       .traditional = "rope_traditional",
       .part = 1,
       .rope = RopeFact::own},
      spec);
  shape.rope.base = config.number_or("rope_theta", 10000);
  read_scaling(config, shape.rope, spec);
  fill_standard(shape, spec);
  for (BlockSpec& block : spec.blocks) {
    fuse_qkv(block.attention, block.path + ".self_attn.qkv_proj");
    fuse_gate_up(*block.mlp, block.path + ".mlp");
  }
  return spec;
}

}  // namespace pennyweight
