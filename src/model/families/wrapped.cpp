// Checkpoints of several modalities, of which the language model is
// quantized. mlx-lm keeps it under language_model. and drops the rest when it
// loads; an output keeps the rest as it is, for those who use it.

#include "core/error.h"
#include "model/families/standard.h"

namespace pennyweight {

namespace {

const std::string kInner = "language_model.";

// Where the hub's two layouts keep the inner tensor of that name.
std::vector<std::string> hub_names(const std::string& inner) {
  if (inner.starts_with("model.")) {
    return {"model.language_model." + inner.substr(6)};
  }
  return {inner};  // the head, at the top
}

void move_inside(LinearSpec& linear) {
  if (!linear.path.empty()) {
    linear.path = kInner + linear.path;
  }
}

void move_inside(NormSpec& norm) {
  norm.path = kInner + norm.path;
}

template <class T>
void move_inside(std::optional<T>& part) {
  if (part) {
    move_inside(*part);
  }
}

void move_inside(BlockSpec& block) {
  block.path = kInner + block.path;
  auto& attention = block.attention;
  for (LinearSpec* linear :
       {&attention.q, &attention.k, &attention.v, &attention.o}) {
    move_inside(*linear);
  }
  move_inside(attention.qkv);
  move_inside(attention.q_norm);
  move_inside(attention.k_norm);
  move_inside(block.attention_norm);
  move_inside(block.attention_post);
  move_inside(block.mlp_norm);
  move_inside(block.mlp_post);
  if (block.mlp) {
    move_inside(block.mlp->gate);
    move_inside(block.mlp->up);
    move_inside(block.mlp->down);
    move_inside(block.mlp->gate_up);
  }
}

// Each tensor of the module, by the names of either layout.
void add_sources(const std::string& path, DecoderSpec& spec) {
  const std::string inner = path.substr(kInner.size());
  for (const char* suffix : {".weight", ".bias", ".scales", ".biases"}) {
    for (const auto& name : hub_names(inner + suffix)) {
      spec.sources.emplace(path + suffix, TensorSource{.name = name});
    }
  }
}

void move_inside(DecoderSpec& spec) {
  spec.embedding = kInner + spec.embedding;
  move_inside(spec.final_norm);
  move_inside(spec.head);
  for (BlockSpec& block : spec.blocks) {
    move_inside(block);
  }
  std::vector<std::string> dropped;
  for (const auto& name : spec.dropped) {
    dropped.push_back(kInner + name);
    for (const auto& other : hub_names(name)) {
      dropped.push_back(other);
    }
  }
  spec.dropped = std::move(dropped);
  for (const ModuleSpec& module : list_homes(spec)) {
    add_sources(module.path, spec);
  }
  for (const BlockSpec& block : spec.blocks) {
    for (const NormSpec& norm : list_norms(block)) {
      add_sources(norm.path, spec);
    }
  }
  add_sources(spec.final_norm.path, spec);
}

// What is not language, by the names that mlx-lm drops.
void carry_others(const FamilyInput& input, DecoderSpec& spec) {
  for (const std::string part : {"vision_tower.", "multi_modal_projector."}) {
    spec.carried.push_back(part);
    for (const auto& name : input.tensors_under("model." + part)) {
      spec.sources.emplace(name.substr(6), TensorSource{.name = name});
    }
    const auto count = input.tensors_under("model." + part).size() +
        input.tensors_under(part).size();
    if (count > 0) {
      spec.notes.push_back(
          std::to_string(count) + " tensors of " +
          part.substr(0, part.size() - 1) + " are carried over as they are");
    }
  }
}

// The language model of `text` with its tensors where the wrapper has them.
DecoderSpec read_inner(
    const FamilyInput& input,
    const Json& text,
    DecoderSpec (*read)(const FamilyInput&)) {
  const JsonView config(text, input.config.origin() + ": text_config");
  const auto has_tensor = [&](const std::string& name) {
    const auto others = hub_names(name);
    return input.has_tensor(kInner + name) || input.has_tensor(others.front());
  };
  auto spec = read({config, has_tensor, input.tensors_under, input.shape_of});
  move_inside(spec);
  carry_others(input, spec);
  if (!spec.config_patch.empty()) {
    Json patched = input.config.json()["text_config"];
    patched.update(spec.config_patch);
    spec.config_patch = {{"text_config", patched}};
  }
  return spec;
}

const Json& text_config(const FamilyInput& input) {
  const Json* text = input.config.find("text_config");
  if (!text || !text->is_object()) {
    throw Error(
        ErrorCode::corrupt,
        "model",
        input.config.origin() + ": \"text_config\" is missing");
  }
  return *text;
}

}  // namespace

// mlx_lm/models/mistral3.py, which also stands for llava.
DecoderSpec read_mistral3(const FamilyInput& input) {
  Json text = text_config(input);
  if (!text.contains("tie_word_embeddings")) {
    text["tie_word_embeddings"] = false;
  }
  const auto type = JsonView(text, input.config.origin() + ": text_config")
                        .string_or("model_type", "llama");
  if (type != "ministral3" && type != "llama" && type != "mistral") {
    throw Error(
        ErrorCode::not_supported,
        "model",
        input.config.origin() + ": a language model of type " +
            one_line(type, 40) + " inside this family");
  }
  return read_inner(
      input, text, type == "ministral3" ? read_ministral3 : read_llama);
}

// mlx_lm/models/gemma3.py, with its own defaults for the text part.
DecoderSpec read_gemma3(const FamilyInput& input) {
  Json text = with_defaults(
      text_config(input),
      {{"num_attention_heads", 8}, {"num_key_value_heads", 4}});
  text["vocab_size"] =
      input.config.integer_or("vocab_size", 262208, 1, int64_t{1} << 30);
  return read_inner(input, text, read_gemma3_text);
}

}  // namespace pennyweight
