#include "core/json.h"
#include "model/families/mixers/delta.h"

namespace pennyweight {

namespace {

const std::string kInner = "language_model.";
constexpr double kDefaultPart = 0.25;  // of a head that is rotated

// The tensor's name in the checkpoint: mlx-lm's, that of a model of several
// modalities, or of a language model alone. A '#' is kept.
std::string stored_name(const FamilyInput& input, const std::string& name) {
  const std::string inner = name.substr(kInner.size());
  std::vector<std::string> names{name, inner};
  if (inner.starts_with("model.")) {
    names.push_back("model.language_model." + inner.substr(6));
  }
  for (const auto& other : names) {
    const TensorSource source{.name = other, .count = 1};
    if (input.has_tensor(source.part(0))) {
      return other;
    }
  }
  return name;
}

// Adds sources for experts' stacks in transformers' form: gate above up.
void add_fused_experts(
    const FamilyInput& input,
    const MoeSpec& moe,
    DecoderSpec& spec) {
  const auto& path = moe.experts.gate.path;
  const auto block = path.substr(0, path.find(".switch_mlp"));
  const auto fused = stored_name(input, block + ".experts.gate_up_proj");
  const auto down = stored_name(input, block + ".experts.down_proj");
  if (!input.has_tensor(fused)) {
    return;
  }
  split_gate_up(moe.experts, {.name = fused}, down, spec);
}

void add_sources(const FamilyInput& input, DecoderSpec& spec) {
  const auto stored = [&](const std::string& name) {
    return stored_name(input, name);
  };
  for (auto& [name, source] : spec.sources) {  // stacks of single experts
    source.name = stored(source.name);
  }
  bool raw = false;  // the hub's norms and convolutions
  for (const BlockSpec& block : spec.blocks) {
    if (const auto& delta = block.attention.delta) {
      const auto shape = input.shape_of(stored(delta->conv.name));
      raw = raw || (!shape.empty() && shape.back() != 1);
    }
    if (block.moe) {
      add_fused_experts(input, *block.moe, spec);
    }
  }
  add_stored_names(stored, spec);
  if (raw) {
    add_delta_sources(stored, spec);
  }
}

// The spec of the language model, with paths under language_model.
DecoderSpec read_text(const FamilyInput& input) {
  const JsonView& config = input.config;
  DecoderSpec spec;
  FamilyInput stored = input;
  stored.has_tensor = [&](const std::string& name) {
    return input.has_tensor(stored_name(input, kInner + name));
  };
  auto shape = read_standard_shape(
      stored,
      {.qkv_bias = "attention_bias",
       .output_bias = "attention_bias",
       .qk_norm = true,
       .rope = RopeFact::own},
      spec);
  shape.prefix = kInner;
  static const Json none = Json::object();  // mlx-lm takes a null for this
  const auto given = config.object("rope_parameters");
  const auto parameters =
      given ? *given : JsonView(none, config.origin() + ": rope_parameters");
  shape.rope.dims = partial_dims(parameters, shape.head_dim, kDefaultPart);
  shape.rope.base = parameters.number_or("rope_theta", 100000);
  read_rope_scaling(parameters, read_positions(config), shape.rope, spec.notes);
  fill_standard(shape, spec);
  fill_delta_layers(config, false, spec);
  fill_delta_experts(config, true, spec);
  if (shape.tied) {
    spec.dropped.push_back("lm_head.weight");
    spec.dropped.push_back(kInner + "lm_head.weight");
  }
  spec.mtp.push_back("*mtp.");
  add_sources(input, spec);
  return spec;
}

}  // namespace

// mlx_lm/models/qwen3_5.py and, with experts, qwen3_5_moe.py: the language
// model alone, or as the text part of one of several modalities.
DecoderSpec read_qwen3_5(const FamilyInput& input) {
  const Json* text = input.config.find("text_config");
  FamilyInput inner = input;
  inner.config = JsonView(
      text ? *text : *input.given,
      input.config.origin() + (text ? ": text_config" : ""));
  auto spec = read_as("qwen3_5.TextModelArgs", read_text, inner);
  if (text) {
    nest_patch(*text, spec);
  }
  for (const std::string part : {"vision_tower.", "model.visual."}) {
    carry_over(part, input.tensors_under(part).size(), spec);
  }
  return spec;
}

}  // namespace pennyweight
