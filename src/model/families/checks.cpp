#include "core/error.h"
#include "model/families/standard.h"

namespace pennyweight {

namespace {

[[noreturn]] void
refuse(ErrorCode code, const JsonView& config, const std::string& what) {
  throw Error(code, "model", config.origin() + ": " + what);
}

}  // namespace

void require_plain_heads(const JsonView& config, const StandardShape& shape) {
  if (shape.head_dim != shape.hidden / shape.heads) {
    refuse(
        ErrorCode::not_supported,
        config,
        "a head_dim other than hidden_size / num_attention_heads, which "
        "mlx-lm does not read for this family");
  }
}

void refuse_rope_scaling(const JsonView& config, const RopeSpec& rope) {
  if (rope.scaling != RopeSpec::Scaling::none) {
    refuse(
        ErrorCode::not_supported,
        config,
        "a scaled rotary embedding, which mlx-lm does not read for this "
        "family");
  }
}

Json with_defaults(const Json& config, Json defaults) {
  for (const auto& [key, value] : config.items()) {
    if (!value.is_null()) {
      defaults[key] = value;
    }
  }
  return defaults;
}

void fuse_gate_up(MlpSpec& mlp, const std::string& path) {
  mlp.gate_up = LinearSpec{
      path + ".gate_up_proj", 2 * mlp.gate.out, mlp.gate.in, mlp.gate.bias};
}

void add_stored_names(
    const std::function<std::string(const std::string&)>& stored,
    DecoderSpec& spec) {
  const auto add = [&](const std::string& name) {
    if (const auto other = stored(name); other != name) {
      spec.sources.emplace(name, TensorSource{.name = other});
    }
  };
  const auto add_norm = [&](const NormSpec& norm) {
    add(norm.path + ".weight");
    if (norm.bias) {
      add(norm.path + ".bias");
    }
  };
  for (const ModuleSpec& module : list_homes(spec)) {
    for (const char* suffix : {".weight", ".bias", ".scales", ".biases"}) {
      add(module.path + suffix);
    }
  }
  for (const BlockSpec& block : spec.blocks) {
    for (const NormSpec& norm : list_norms(block)) {
      add_norm(norm);
    }
    for (const ParameterSpec& parameter : list_parameters(block)) {
      add(parameter.name);
    }
  }
  add_norm(spec.final_norm);
}

void carry_over(const std::string& prefix, size_t count, DecoderSpec& spec) {
  spec.carried.push_back(prefix);
  if (count > 0) {
    spec.notes.push_back(
        std::to_string(count) + " tensors of " +
        prefix.substr(0, prefix.size() - 1) + " are carried over as they are");
  }
}

void note_window(const JsonView& config, DecoderSpec& spec) {
  const auto window =
      config.integer_or("sliding_window", 0, 0, int64_t{1} << 30);
  if (window > 0) {
    spec.notes.push_back(
        "sliding_window is not used, as in mlx-lm: sequences longer than " +
        std::to_string(window) + " tokens attend to all of their past");
  }
}

int partial_dims(const JsonView& config, int head_dim, double fallback) {
  const double factor = config.number_or("partial_rotary_factor", fallback);
  const int dims = static_cast<int>(head_dim * factor);
  if (!(factor > 0) || factor > 1 || dims < 2 || dims % 2 != 0) {
    refuse(
        ErrorCode::corrupt,
        config,
        "\"partial_rotary_factor\" must rotate an even part of each head");
  }
  return dims;
}

}  // namespace pennyweight
