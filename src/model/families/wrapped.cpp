// Checkpoints of several modalities, of which the language model is
// quantized. mlx-lm keeps it under language_model. and drops the rest when it
// loads; an output keeps the rest as it is, for those who use it.

#include "model/families/wrapped.h"

#include <map>

#include "core/json.h"
#include "model/config/class_config.h"
#include "model/families/standard.h"

namespace pennyweight {

std::string hub_name(const std::string& name) {
  const std::string inner = name.substr(kWrapped.size());
  return inner.starts_with("model.") ? "model.language_model." + inner.substr(6)
                                     : inner;  // the head, at the top
}

std::string found_name(const FamilyInput& input, const std::string& name) {
  for (const auto& other :
       {name, hub_name(name), name.substr(kWrapped.size())}) {
    const TensorSource source{.name = other, .count = 1};
    if (input.has_tensor(source.part(0))) {
      return other;
    }
  }
  return name;
}

void carry_parts(
    const FamilyInput& input,
    const std::vector<std::string>& parts,
    DecoderSpec& spec) {
  for (const std::string& part : parts) {
    const auto moved = input.tensors_under("model." + part);
    for (const auto& name : moved) {
      spec.sources.emplace(name.substr(6), TensorSource{.name = name});
    }
    carry_over(part, moved.size() + input.tensors_under(part).size(), spec);
  }
}

DecoderSpec read_language_model(
    const FamilyInput& input,
    const JsonView& config,
    const char* model_class,
    DecoderSpec (*read)(const FamilyInput&),
    const StoredName& stored) {
  FamilyInput inner = input;
  inner.config = config;
  inner.prefix = kWrapped;
  inner.has_tensor = [&](const std::string& name) {
    return input.has_tensor(kWrapped + name) ||
        input.has_tensor(stored(kWrapped + name));
  };
  auto spec = read_as(model_class, read, inner);
  for (auto* names : {&spec.dropped, &spec.mtp}) {
    for (const auto& name : std::vector(*names)) {
      if (name.starts_with(kWrapped)) {
        names->push_back(hub_name(name));
      }
    }
  }
  for (auto& [name, source] : spec.sources) {
    if (source.name.starts_with(kWrapped) &&
        !input.has_tensor(source.part(0))) {
      source.name = stored(source.name);
    }
  }
  add_stored_names(stored, spec);
  return spec;
}

namespace {

// The language model of `text` with its tensors where the wrapper has them.
DecoderSpec read_inner(
    const FamilyInput& input,
    const Json& text,
    const char* model_class,
    DecoderSpec (*read)(const FamilyInput&)) {
  auto spec = read_language_model(
      input,
      JsonView(text, input.config.origin() + ": text_config"),
      model_class,
      read,
      hub_name);
  carry_parts(input, {"vision_tower.", "multi_modal_projector."}, spec);
  nest_patch(input.config.json()["text_config"], spec);
  return spec;
}

const Json& text_config(const FamilyInput& input) {
  const Json* text = input.config.find("text_config");
  if (!text || !text->is_object()) {
    throw wrong_config(input.config, "\"text_config\" is missing");
  }
  return *text;
}

// LLaVA 1.5 was published with a text_config that leaves out what is the
// default of transformers' LlamaConfig.
Json missing_sizes(const Json& text) {
  Json missing = Json::object();
  for (const auto& [key, value] : std::map<std::string, Json>{
           {"hidden_size", 4096},
           {"intermediate_size", 11008},
           {"num_attention_heads", 32},
           {"num_hidden_layers", 32},
           {"rms_norm_eps", 1e-6},
           {"vocab_size", 32000}}) {
    if (!has_key(text, key)) {
      missing[key] = value;
    }
  }
  return missing;
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
  const Json added = type == "llama" ? missing_sizes(text) : Json::object();
  text.update(added);
  if (type != "ministral3" && type != "mistral4" && type != "llama" &&
      type != "mistral") {
    refuse_config(
        input.config,
        "a language model of type " + one_line(type, 40) +
            " inside this family");
  }
  auto spec = type == "ministral3"
      ? read_inner(input, text, "ministral3", read_ministral3)
      : type == "mistral4" ? read_inner(input, text, "mistral4", read_mistral4)
                           : read_inner(input, text, "llama", read_llama);
  if (!added.empty()) {
    Json patched = spec.config_patch.value("text_config", text_config(input));
    patched.update(added);
    spec.config_patch["text_config"] = std::move(patched);
    spec.notes.push_back(
        "text_config leaves sizes out, for which mlx-lm has no default: an "
        "output's config gets transformers'");
  }
  return spec;
}

// mlx_lm/models/kimi_k25.py: DeepSeek-V3 inside.
DecoderSpec read_kimi_k25(const FamilyInput& input) {
  auto spec =
      read_inner(input, text_config(input), "deepseek_v3", read_deepseek_v3);
  for (const std::string part : {"vision_model.", "mm_projector."}) {
    carry_over(part, input.tensors_under(part).size(), spec);
  }
  return spec;
}

// mlx_lm/models/gemma3.py, with its own defaults for the text part.
DecoderSpec read_gemma3(const FamilyInput& input) {
  Json text = text_config(input);
  for (const auto& [key, value] :
       {std::pair{"num_attention_heads", 8},
        std::pair{"num_key_value_heads", 4}}) {
    if (!text.contains(key)) {
      text[key] = value;
    }
  }
  text["vocab_size"] = input.config.integer("vocab_size", 1, kMaxWidth * 8);
  return read_inner(input, text, "gemma3_text", read_gemma3_text);
}

}  // namespace pennyweight
