#include <algorithm>

#include "core/json.h"
#include "core/text.h"
#include "model/families/standard.h"

namespace pennyweight {

void refuse_config(const JsonView& config, const std::string& what) {
  throw not_supported_error("model", config.origin() + ": " + what);
}

const Json*
find_layer_list(const JsonView& config, const char* key, int64_t layers) {
  const Json* list = config.find(key);
  if (list && (!list->is_array() || std::ssize(*list) != layers)) {
    throw wrong_config(
        config,
        "\"" + std::string(key) + "\" must have " + std::to_string(layers) +
            " entries");
  }
  return list;
}

const Json&
layer_list(const JsonView& config, const char* key, int64_t layers) {
  const Json* list = find_layer_list(config, key, layers);
  if (!list) {
    throw wrong_config(config, "\"" + std::string(key) + "\" is missing");
  }
  return *list;
}

void require_full_attention(const JsonView& config, const Json& types) {
  if (std::ranges::find(types, Json("full_attention")) == types.end()) {
    refuse_config(
        config,
        "no layer is of type full_attention, without which mlx-lm can't load "
        "this family");
  }
}

void require_scaling(
    const JsonView& config,
    const char* key,
    const std::vector<std::string>& types) {
  const auto scaling = config.object("rope_scaling");
  if (!scaling || scaling->json().empty()) {
    return;
  }
  const auto type = scaling->string_or(key, "");
  if (!scaling->has("factor") ||
      std::ranges::find(types, type) == types.end()) {
    refuse_config(
        config,
        "rope_scaling wants a factor and a " + std::string(key) + " of " +
            joined(types, " or ") +
            ", without which mlx-lm can't load this family");
  }
}

void use_plain_heads(StandardShape& shape, DecoderSpec& spec) {
  const int plain = static_cast<int>(shape.hidden / shape.heads);
  if (shape.head_dim != plain) {
    spec.notes.push_back(
        "head_dim " + std::to_string(shape.head_dim) +
        " is not used, as in mlx-lm, which takes hidden_size / "
        "num_attention_heads = " +
        std::to_string(plain));
    shape.head_dim = plain;
    shape.rope.dims = plain;
  }
}

void fuse_qkv(AttentionSpec& attention, const std::string& path) {
  attention.qkv = LinearSpec{
      path,
      attention.q.out + attention.k.out + attention.v.out,
      attention.q.in,
      attention.q.bias};
}

void fuse_gate_up(MlpSpec& mlp, const std::string& path) {
  mlp.gate_up = LinearSpec{
      path + ".gate_up_proj", 2 * mlp.gate.out, mlp.gate.in, mlp.gate.bias};
}

void split_gate_up(
    const MlpSpec& mlp,
    const TensorSource& joined,
    const std::string& down,
    DecoderSpec& spec) {
  auto gate = joined, up = joined, below = joined;
  gate.end = static_cast<int>(mlp.gate.out);
  up.first = gate.end;
  below.name = down;
  spec.sources[mlp.gate.path + ".weight"] = gate;
  spec.sources[mlp.up.path + ".weight"] = up;
  spec.sources[mlp.down.path + ".weight"] = below;
}

NormSpec block_norm(
    const BlockSpec& block,
    const char* name,
    const DecoderSpec& spec,
    float offset) {
  return {block.path + name, spec.hidden, spec.final_norm.eps, offset};
}

void widen_head_norms(DecoderSpec& spec) {
  for (BlockSpec& block : spec.blocks) {
    block.attention.q_norm->size = block.attention.q.out;
    block.attention.k_norm->size = block.attention.k.out;
  }
}

void use_layer_norms(DecoderSpec& spec, bool bias) {
  const auto center = [&](NormSpec& norm) {
    norm.centered = true;
    norm.bias = bias;
  };
  for (BlockSpec& block : spec.blocks) {
    center(*block.attention_norm);
    center(*block.mlp_norm);
  }
  center(spec.final_norm);
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
  for (const ModuleSpec& module : list_stored_modules(spec)) {
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
  for (const NormSpec& norm : list_outer_norms(spec)) {
    add_norm(norm);
  }
}

void carry_over(const std::string& prefix, size_t count, DecoderSpec& spec) {
  spec.carried.push_back(prefix);
  if (count > 0) {
    spec.notes.push_back(
        std::to_string(count) + " tensors of " +
        prefix.substr(0, prefix.size() - 1) + " are carried over as they are");
  }
}

int read_window(const JsonView& config, DecoderSpec& spec) {
  constexpr const char* kKey = "sliding_window";
  constexpr int64_t kLongest = int64_t{1} << 30;
  if (config.has(kKey) || !config.json().contains(kKey)) {
    return static_cast<int>(config.integer(kKey, 1, kLongest));
  }
  spec.config_patch[kKey] = kLongest;
  spec.notes.push_back(
      std::string(kKey) +
      " is null: no layer has a window, as in mlx-lm, and an output says so by "
      "one that is longer than any text, without which mlx-lm can't generate");
  return 0;
}

void count_as_read(
    const JsonView& config,
    std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    config.has(key);
  }
}

void nest_patch(const Json& text, DecoderSpec& spec) {
  if (!spec.config_patch.empty()) {
    Json patched = text;
    patched.update(spec.config_patch);
    spec.config_patch = {{"text_config", patched}};
  }
}

void set_next_layers_apart(const JsonView& config, DecoderSpec& spec) {
  const auto more = config.integer_or("num_nextn_predict_layers", 0, 0, 64);
  for (int64_t i = 0; i < more; ++i) {
    const auto& first = spec.blocks.front().path;  // ends with a 0, its number
    spec.mtp.push_back(
        first.substr(0, first.size() - 1) +
        std::to_string(static_cast<int64_t>(spec.blocks.size()) + i) + ".");
  }
}

QueryGrowth read_query_growth(
    const JsonView& config,
    std::optional<double> theta) {
  const auto parameters = config.object("rope_parameters");
  if (!parameters) {
    throw wrong_config(config, "\"rope_parameters\" is missing");
  }
  const double beta = parameters->number("llama_4_scaling_beta");
  const auto positions = parameters->integer(
      "original_max_position_embeddings", 1, int64_t{1} << 30);
  Json own = config.json();
  own["rope_theta"] = theta ? parameters->number_or("rope_theta", *theta)
                            : parameters->number("rope_theta");
  own["rope_scaling"] = parameters->json();
  own["rope_scaling"].erase("llama_4_scaling_beta");
  return {
      static_cast<float>(beta), static_cast<int>(positions), std::move(own)};
}

int partial_dims(const JsonView& config, int head_dim, double fallback) {
  const double factor = config.number_or("partial_rotary_factor", fallback);
  const int dims = static_cast<int>(head_dim * factor);
  if (!(factor > 0) || factor > 1 || dims < 2 || dims % 2 != 0) {
    throw wrong_config(
        config,
        "\"partial_rotary_factor\" must rotate an even part of each head");
  }
  return dims;
}

}  // namespace pennyweight
