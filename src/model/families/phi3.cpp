#include "core/error.h"
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
    throw not_supported_error(
        "model",
        config.origin() +
            ": rope_scaling without \"type\" and \"long_factor\", which "
            "mlx-lm cannot load for this family");
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
  const auto positions = static_cast<int>(config.integer_or(
      "max_position_embeddings", 131072, 1, int64_t{1} << 30));
  const std::string origin = config.origin() + ": rope_scaling";
  read_rope_scaling(JsonView(scaling, origin), positions, rope, spec.notes);
}

}  // namespace

// mlx_lm/models/phi3.py: llama with q, k, v in one matrix and gate, up in one.
DecoderSpec read_phi3(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  note_activation(config, spec);
  auto shape = read_standard_shape(config);
  use_plain_heads(shape, spec);
  shape.tied = read_tied(input, spec);
  shape.rope.traditional = config.boolean_or("rope_traditional", false);
  shape.rope.dims = partial_dims(config, shape.head_dim);
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
