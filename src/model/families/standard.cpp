#include "model/families/standard.h"

#include <cmath>

#include "core/error.h"

namespace pennyweight {

namespace {

// Far above any model; keeps every product below within int64.
constexpr int64_t kMaxHeads = 1 << 16;
constexpr int64_t kMaxHeadDim = 1 << 14;
constexpr int64_t kMaxPositions = int64_t{1} << 30;

[[noreturn]] void wrong(const JsonView& config, const std::string& what) {
  throw Error(ErrorCode::corrupt, "model", config.origin() + ": " + what);
}

void use_rope_parameters(
    const JsonView& parameters,
    bool has_theta,
    bool has_scaling,
    RopeSpec& rope,
    DecoderSpec& spec) {
  bool said = false;
  if (!has_theta && parameters.has("rope_theta")) {
    spec.config_patch["rope_theta"] = rope.base;
    said = true;
  }
  if (!has_scaling && rope.scaling != RopeSpec::Scaling::none) {
    Json scaling = parameters.json();
    scaling.erase("rope_theta");
    spec.config_patch["rope_scaling"] = scaling;
    said = true;
  }
  if (said) {
    spec.notes.push_back(
        "the rotary embedding is read from rope_parameters, which mlx-lm does "
        "not read for this family: an output's config needs rope_theta and "
        "rope_scaling");
  }
}

}  // namespace

MlpSpec
standard_mlp(const std::string& path, int64_t hidden, int64_t wide, bool bias) {
  return {
      .gate = {path + ".gate_proj", wide, hidden, bias},
      .up = {path + ".up_proj", wide, hidden, bias},
      .down = {path + ".down_proj", hidden, wide, bias}};
}

namespace {

BlockSpec standard_block(const StandardShape& shape, int index) {
  std::string path = shape.prefix + "model.layers." + std::to_string(index);
  std::string attention = path + ".self_attn.";
  int64_t hidden = shape.hidden;
  int64_t q_width = int64_t{shape.heads} * shape.head_dim;
  int64_t kv_width = int64_t{shape.kv_heads} * shape.head_dim;
  int64_t wide = shape.intermediate;
  bool bias = shape.qkv_bias;

  BlockSpec block;
  block.index = index;
  block.path = path;
  block.attention_norm = {path + ".input_layernorm", hidden, shape.eps};
  block.mlp_norm = {path + ".post_attention_layernorm", hidden, shape.eps};
  block.attention.q = {attention + "q_proj", q_width, hidden, bias};
  block.attention.k = {attention + "k_proj", kv_width, hidden, bias};
  block.attention.v = {attention + "v_proj", kv_width, hidden, bias};
  block.attention.o = {
      attention + "o_proj", hidden, q_width, shape.output_bias};
  if (shape.qk_norm) {
    block.attention.q_norm = {attention + "q_norm", shape.head_dim, shape.eps};
    block.attention.k_norm = {attention + "k_norm", shape.head_dim, shape.eps};
  }
  block.attention.heads = shape.heads;
  block.attention.kv_heads = shape.kv_heads;
  block.attention.head_dim = shape.head_dim;
  block.attention.scale =
      static_cast<float>(1 / std::sqrt(static_cast<double>(shape.head_dim)));
  block.attention.rope = shape.rope;
  block.attention.window = shape.windows.empty() ? 0 : shape.windows[index];
  block.mlp = standard_mlp(path + ".mlp", hidden, wide, shape.mlp_bias);
  return block;
}

}  // namespace

std::vector<const char*> with_standard_keys(std::vector<const char*> more) {
  more.insert(
      more.end(),
      {"hidden_size",
       "num_hidden_layers",
       "intermediate_size",
       "num_attention_heads",
       "num_key_value_heads",
       "head_dim",
       "vocab_size",
       "rms_norm_eps",
       "hidden_act",
       "rope_theta",
       "rope_scaling",
       "rope_parameters",
       "tie_word_embeddings"});
  return more;
}

StandardShape read_standard_shape(const JsonView& config) {
  StandardShape shape;
  shape.hidden = config.integer("hidden_size", 1, kMaxWidth);
  shape.intermediate = config.integer("intermediate_size", 1, kMaxWidth);
  shape.vocab = config.integer("vocab_size", 1, kMaxWidth * 8);
  shape.layers = config.integer("num_hidden_layers", 1, kMaxLayers);
  shape.heads = config.integer("num_attention_heads", 1, kMaxHeads);
  shape.kv_heads =
      config.integer_or("num_key_value_heads", shape.heads, 1, kMaxHeads);
  shape.head_dim =
      config.integer_or("head_dim", shape.hidden / shape.heads, 0, kMaxHeadDim);
  if (shape.head_dim == 0) {  // as absent, in mlx-lm
    shape.head_dim = static_cast<int>(shape.hidden / shape.heads);
  }
  if (shape.head_dim < 2 || shape.head_dim % 2 != 0) {
    wrong(config, "the head dimension must be even");
  }
  if (shape.heads % shape.kv_heads != 0) {
    wrong(
        config,
        "num_attention_heads must be a multiple of "
        "num_key_value_heads");
  }
  if (int64_t{shape.heads} * shape.head_dim > kMaxWidth * 16) {
    wrong(config, "num_attention_heads * head_dim is out of range");
  }
  double eps = config.number("rms_norm_eps");
  if (eps < 0 || eps > 1) {
    wrong(config, "\"rms_norm_eps\" must be in [0, 1]");
  }
  shape.eps = static_cast<float>(eps);
  shape.rope.dims = shape.head_dim;
  return shape;
}

float read_multiplier(const JsonView& config, const char* key) {
  const double value = config.number(key);
  if (!(value > 0) || value > 1e6) {
    wrong(config, "\"" + std::string(key) + "\" must be above 0");
  }
  return static_cast<float>(value);
}

void check_standard_config(
    const JsonView& config,
    const std::string& wanted,
    const char* key) {
  auto activation = config.string_or(key, wanted);
  if (activation != wanted && !(wanted == "silu" && activation == "swish")) {
    throw Error(
        ErrorCode::not_supported,
        "model",
        config.origin() + ": " + key + " \"" + one_line(activation, 40) +
            "\" is not supported for this family, only " + wanted);
  }
  if (config.has("model_file")) {
    throw Error(
        ErrorCode::not_supported,
        "model",
        config.origin() + ": \"model_file\" asks to run code of its own");
  }
  const Json* architectures = config.find("architectures");
  if (!architectures || !architectures->is_array() || architectures->empty()) {
    return;
  }
  const Json& name = architectures->front();
  if (!name.is_string() ||
      name.get<std::string>().find("CausalLM") == std::string::npos) {
    throw Error(
        ErrorCode::not_supported,
        "model",
        config.origin() + ": architecture " + one_line(name.dump(), 60) +
            " is not a causal language model");
  }
}

bool read_tied(const FamilyInput& input, bool fallback, DecoderSpec& spec) {
  bool tied = input.config.boolean_or("tie_word_embeddings", fallback);
  if (!tied || !input.has_tensor("lm_head.weight")) {
    return tied;
  }
  if (!input.config.has("tie_word_embeddings")) {
    spec.config_patch["tie_word_embeddings"] = false;
    spec.notes.push_back(
        "tie_word_embeddings is not in the config, but the checkpoint has an "
        "lm_head.weight, which is taken as the head; an output's config needs "
        "tie_word_embeddings = false");
    return false;
  }
  spec.dropped.push_back(input.prefix + "lm_head.weight");
  spec.notes.push_back(
      "lm_head.weight is dropped: tie_word_embeddings says that the embedding "
      "is the head");
  return true;
}

void read_rope(
    const JsonView& config,
    std::optional<double> default_theta,
    bool patch_parameters,
    RopeSpec& rope,
    DecoderSpec& spec) {
  auto parameters = config.object("rope_parameters");
  auto scaling = config.object("rope_scaling");
  bool has_theta = config.has("rope_theta");
  bool has_scaling = scaling.has_value();

  if (!has_theta && parameters && parameters->has("rope_theta")) {
    rope.base = parameters->number("rope_theta");
  } else if (has_theta || !default_theta) {
    rope.base = config.number("rope_theta");
  } else {
    rope.base = *default_theta;
  }
  if (!(rope.base > 1) || rope.base > 1e15) {
    wrong(config, "\"rope_theta\" must be above 1");
  }
  if (!has_scaling && parameters) {
    scaling = parameters;
  }
  std::optional<int> max_positions;
  if (config.has("max_position_embeddings")) {
    max_positions = static_cast<int>(
        config.integer("max_position_embeddings", 1, kMaxPositions));
  }
  if (scaling) {
    read_rope_scaling(*scaling, max_positions, rope, spec.notes);
  }
  if (parameters && patch_parameters) {
    use_rope_parameters(*parameters, has_theta, has_scaling, rope, spec);
  }
}

void note_unused_windows(const JsonView& config, DecoderSpec& spec) {
  bool sliding = config.boolean_or("use_sliding_window", false);
  if (const Json* types = config.find("layer_types")) {
    for (const Json& type : *types) {
      sliding = sliding || type == "sliding_attention";
      if (type != "sliding_attention" && type != "full_attention") {
        throw Error(
            ErrorCode::not_supported,
            "model",
            config.origin() + ": layer type " + one_line(type.dump(), 60) +
                " is not supported for this family");
      }
    }
  }
  if (sliding) {
    spec.notes.push_back(
        "sliding windows are not used, as in mlx-lm: every layer attends to "
        "all of its past");
  }
}

void fill_standard(const StandardShape& shape, DecoderSpec& spec) {
  spec.hidden = shape.hidden;
  spec.vocab = shape.vocab;
  spec.embedding = shape.prefix + "model.embed_tokens";
  for (int i = 0; i < shape.layers; ++i) {
    spec.blocks.push_back(standard_block(shape, i));
    spec.dropped.push_back(
        spec.blocks.back().path + ".self_attn.rotary_emb.inv_freq");
  }
  spec.final_norm = {shape.prefix + "model.norm", shape.hidden, shape.eps};
  if (!shape.tied) {
    spec.head =
        LinearSpec{shape.prefix + "lm_head", shape.vocab, shape.hidden, false};
  }
}

}  // namespace pennyweight
