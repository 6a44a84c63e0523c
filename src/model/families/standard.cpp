#include "model/families/standard.h"

#include <cmath>

#include "core/error.h"
#include "model/config/class_config.h"

namespace pennyweight {

namespace {

// Bounds far above any model's sizes, which keep products within int64.
constexpr int64_t kMaxHeads = 1 << 16;
constexpr int64_t kMaxHeadDim = 1 << 14;
constexpr int64_t kMaxPositions = int64_t{1} << 30;

}  // namespace

Error wrong_config(const JsonView& config, const std::string& what) {
  return corrupt_error("model", config.origin() + ": " + what);
}

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

StandardShape read_sizes(const JsonView& config, const char* eps_key) {
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
    throw wrong_config(config, "the head dimension must be even");
  }
  if (shape.heads % shape.kv_heads != 0) {
    throw wrong_config(
        config,
        "num_attention_heads must be a multiple of "
        "num_key_value_heads");
  }
  if (int64_t{shape.heads} * shape.head_dim > kMaxWidth * 16) {
    throw wrong_config(
        config, "num_attention_heads * head_dim is out of range");
  }
  double eps = config.number(eps_key);
  if (eps < 0 || eps > 1) {
    throw wrong_config(
        config, "\"" + std::string(eps_key) + "\" must be in [0, 1]");
  }
  shape.eps = static_cast<float>(eps);
  shape.rope.dims = shape.head_dim;
  return shape;
}

bool holds(const JsonView& config, const Fact& fact) {
  return fact.key ? config.boolean_or(fact.key, fact.value) : fact.value;
}

// mlx-lm's class has `own` whatever the config says: notes a config that says
// otherwise (silu goes by the name of swish, too).
void note_activation(
    const JsonView& config,
    DecoderSpec& spec,
    const std::string& own,
    const char* key) {
  const auto activation = config.string_or(key, own);
  // Several names stand for the same function.
  const auto plain = [](const std::string& name) {
    return name == "swish"                                   ? "silu"
        : name == "gelu_fast" || name == "gelu_pytorch_tanh" ? "gelu_new"
                                                             : name;
  };
  if (plain(activation) != plain(own)) {
    spec.notes.push_back(
        std::string(key) + " " + one_line(activation, 40) +
        " is not used, as in mlx-lm, whose class for this family has " + own);
  }
}

// For classes that know a linear scaling alone, and make nothing of another.
void read_linear_rope(
    const JsonView& config,
    RopeSpec& rope,
    DecoderSpec& spec) {
  const auto scaling = config.object("rope_scaling");
  if (scaling && scaling->string_or("type", "") == "linear") {
    read_rope(config, rope, spec);
  } else {
    read_plain_rope(config, rope, spec);
  }
}

bool read_head(
    const FamilyInput& input,
    const StandardFacts& facts,
    DecoderSpec& spec) {
  switch (facts.head) {
    case HeadFact::as_told:
      return read_tied(input, spec, facts.embedding_path, facts.head_path);
    case HeadFact::own:
      return false;
    case HeadFact::tied:
      return true;
    case HeadFact::dropped:
      drop_head(input, spec, facts.head_path);
      return true;
  }
  return false;
}

}  // namespace

StandardShape read_standard_shape(
    const FamilyInput& input,
    const StandardFacts& facts,
    DecoderSpec& spec) {
  const JsonView& config = input.config;
  if (facts.activation) {
    note_activation(config, spec, facts.activation, facts.activation_key);
  }
  auto shape = read_sizes(config, facts.eps);
  shape.prefix = input.prefix;
  shape.embedding = facts.embedding_path;
  shape.final_norm = facts.final_norm_path;
  shape.head = facts.head_path;
  if (facts.plain_heads) {
    use_plain_heads(shape, spec);
  }
  shape.qkv_bias = holds(config, facts.qkv_bias);
  shape.output_bias = holds(config, facts.output_bias);
  shape.mlp_bias = holds(config, facts.mlp_bias);
  shape.qk_norm = holds(config, facts.qk_norm);
  shape.tied = read_head(input, facts, spec);
  shape.rope.traditional = holds(config, facts.traditional);
  if (facts.part > 0) {
    shape.rope.dims = partial_dims(config, shape.head_dim, facts.part);
  }
  if (facts.rope == RopeFact::scaled) {
    read_rope(config, shape.rope, spec);
  } else if (facts.rope == RopeFact::plain) {
    read_plain_rope(config, shape.rope, spec);
  } else if (facts.rope == RopeFact::linear) {
    read_linear_rope(config, shape.rope, spec);
  }
  return shape;
}

DecoderSpec read_standard(
    const FamilyInput& input,
    const StandardFacts& facts) {
  DecoderSpec spec;
  fill_standard(read_standard_shape(input, facts, spec), spec);
  return spec;
}

float read_multiplier(const JsonView& config, const char* key) {
  const double value = config.number(key);
  if (!(value > 0) || value > 1e6) {
    throw wrong_config(config, "\"" + std::string(key) + "\" must be above 0");
  }
  return static_cast<float>(value);
}

bool read_tied(
    const FamilyInput& input,
    DecoderSpec& spec,
    const char* embedding,
    const char* head_path) {
  const std::string own = head_path + std::string(".weight");
  const bool tied = input.config.boolean_or("tie_word_embeddings", false);
  const bool said = has_key(*input.given, "tie_word_embeddings");
  const bool head = input.has_tensor(own);
  if (tied && head && said) {
    drop_head(input, spec, head_path);
    return true;
  }
  // A head that the config asks for by name, or that a missing file may hold,
  // is not made up.
  const bool may_tie = !said && !input.lacks_files &&
      input.has_tensor(embedding + std::string(".weight"));
  const bool ties = !head && (tied || may_tie);
  if (ties != tied || !said) {
    spec.config_patch["tie_word_embeddings"] = ties;
  }
  if (ties && !tied) {
    spec.notes.push_back(
        "the embedding is taken as the head, since there is no " + own +
        ": an output's config gets tie_word_embeddings = true");
  } else if (tied && !ties) {
    spec.notes.push_back(
        "tie_word_embeddings is not in the config, but the checkpoint has an " +
        own +
        ", which is taken as the head; an output's config needs "
        "tie_word_embeddings = false");
  }
  return ties;
}

void drop_head(
    const FamilyInput& input,
    DecoderSpec& spec,
    const std::string& head) {
  if (input.has_tensor(head + ".weight")) {
    spec.dropped.push_back(input.prefix + head + ".");
    spec.notes.push_back(
        head +
        ".weight is dropped, as mlx-lm drops it: the embedding is the "
        "head (tie_word_embeddings)");
  }
}

double check_rope_base(const JsonView& config, double base) {
  if (!(base > 1) || base > 1e15) {
    throw wrong_config(config, "\"rope_theta\" must be above 1");
  }
  return base;
}

int read_positions(const JsonView& config, std::optional<int> fallback) {
  const char* key = "max_position_embeddings";
  return static_cast<int>(
      fallback ? config.integer_or(key, *fallback, 1, kMaxPositions)
               : config.integer(key, 1, kMaxPositions));
}

void read_rope(const JsonView& config, RopeSpec& rope, DecoderSpec& spec) {
  rope.base = check_rope_base(config, config.number("rope_theta"));
  count_as_read(config, {"max_position_embeddings"});
  const auto scaling = config.object("rope_scaling");
  if (!scaling) {
    return;
  }
  std::optional<int> max_positions;
  if (is_scaled(*scaling) && config.has("max_position_embeddings")) {
    max_positions = read_positions(config);
  }
  read_rope_scaling(*scaling, max_positions, rope, spec.notes);
}

void read_plain_rope(
    const JsonView& config,
    RopeSpec& rope,
    DecoderSpec& spec) {
  rope.base = check_rope_base(config, config.number("rope_theta"));
  count_as_read(config, {"max_position_embeddings"});
  if (auto scaling = config.object("rope_scaling");
      scaling && is_scaled(*scaling)) {
    spec.notes.push_back(
        "rope_scaling is not used, as in mlx-lm, whose class for this family "
        "makes nothing of it");
  }
}

void fill_standard(const StandardShape& shape, DecoderSpec& spec) {
  spec.hidden = shape.hidden;
  spec.vocab = shape.vocab;
  spec.embedding = shape.prefix + shape.embedding;
  for (int i = 0; i < shape.layers; ++i) {
    spec.blocks.push_back(standard_block(shape, i));
  }
  // Tensors that follow from the config, and scales of an FP8 cache, which MLX
  // does not have.
  for (const char* part : {"rotary_emb.inv_freq", ".k_scale", ".v_scale"}) {
    spec.dropped.push_back(std::string("*") + part);
  }
  spec.final_norm = {shape.prefix + shape.final_norm, shape.hidden, shape.eps};
  if (!shape.tied) {
    spec.head =
        LinearSpec{shape.prefix + shape.head, shape.vocab, shape.hidden, false};
  }
}

}  // namespace pennyweight
