#include "model/config/class_rope.h"

#include <algorithm>

#include "core/error.h"
#include "core/json.h"
#include "core/text.h"

namespace pennyweight {

namespace {

struct RopeParts {
  Json full = Json::object();   // of layers that attend to all of their past
  Json local = Json::object();  // of layers with a window; may be empty
  bool by_layer = false;
};

const Json* object_at(const Json& values, const char* key) {
  auto it = values.find(key);
  return it != values.end() && it->is_object() ? &*it : nullptr;
}

RopeParts split_by_layer(const Json& parameters) {
  RopeParts parts;
  const auto nested = std::ranges::find_if(
      parameters, [](const Json& value) { return value.is_object(); });
  if (nested == parameters.end()) {
    parts.full = parameters;
    return parts;
  }
  parts.by_layer = true;
  const Json* full = object_at(parameters, "full_attention");
  parts.full = full ? *full : *nested;
  if (const Json* local = object_at(parameters, "sliding_attention")) {
    parts.local = *local;
  }
  return parts;
}

std::string rope_type(const Json& parameters) {
  for (const char* key : {"type", "rope_type"}) {
    if (auto it = parameters.find(key);
        it != parameters.end() && it->is_string()) {
      return it->get<std::string>();
    }
  }
  return "default";
}

// What is left of rope_parameters for rope_scaling.
Json scaling_of(Json parameters) {
  const auto type = rope_type(parameters);
  parameters.erase("rope_theta");
  if (type != "proportional") {
    parameters.erase("partial_rotary_factor");
  }
  parameters["type"] = type;
  return parameters;
}

// What stands at the top is taken, as mlx-lm does, even where rope_parameters
// say otherwise.
void note_other(ClassConfig& config, const char* key, const Json& other) {
  if (config.values.at(key) != other) {
    config.notes.push_back(
        std::string(key) + " " + one_line(config.values.at(key).dump(), 40) +
        " is taken, as in mlx-lm, and not the " + one_line(other.dump(), 40) +
        " in rope_parameters");
  }
}

void take(
    const ModelClass& type,
    const char* key,
    const Json& from,
    const char* name,
    ClassConfig& config) {
  if (!type.reads(key) || !has_key(from, name)) {
    return;
  }
  if (!has_key(config.values, key)) {
    set_key(config, key, Json(from.at(name)));
  }
  note_other(config, key, from.at(name));
}

void note_partial(
    const ModelClass& type,
    const Json& parameters,
    ClassConfig& config) {
  auto part = parameters.find("partial_rotary_factor");
  if (part != parameters.end() && part->is_number() && *part != 1 &&
      !type.reads("partial_rotary_factor") &&
      rope_type(parameters) != "proportional") {
    config.notes.push_back(
        "partial_rotary_factor " + part->dump() +
        " is not used, as in mlx-lm, which rotates whole heads in this family");
  }
}

// `before`: the patch without what was taken from rope_parameters.
void note_spelling(const Json& before, ClassConfig& config) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : config.patch.items()) {
    if (!before.contains(key)) {
      keys.push_back(key);
    }
  }
  if (!keys.empty()) {
    config.notes.push_back(
        "mlx-lm does not read rope_parameters in this family: an output's "
        "config spells out " +
        joined(keys));
  }
}

// The class has rope_parameters and takes nothing from beside them.
bool reads_parameters_alone(const ModelClass& type) {
  const ClassKey* key = type.find("rope_parameters");
  return key &&
      (!type.reads("rope_theta") ||
       (key->fallback && std::string(key->fallback) != "null"));
}

void gather_parameters(ClassConfig& config) {
  auto& values = config.values;
  if (!has_key(values, "rope_parameters") && has_key(values, "rope_theta")) {
    const Json* scaling = object_at(values, "rope_scaling");
    Json parameters = scaling ? *scaling : Json::object();
    if (!parameters.contains("type") && !parameters.contains("rope_type")) {
      parameters["rope_type"] = "default";
    }
    for (const char* key : {"rope_theta", "partial_rotary_factor"}) {
      if (has_key(values, key)) {
        parameters[key] = values.at(key);
      }
    }
    set_key(config, "rope_parameters", std::move(parameters));
  }
  // What stands beside rope_parameters is not read.
  for (const char* key :
       {"rope_theta", "rope_scaling", "partial_rotary_factor"}) {
    values.erase(key);
  }
}

// Classes that look at "type" or at "rope_type" alone, and can't be loaded with
// a rope_scaling that scales nothing.
struct WantedName {
  const char* model_class;
  const char* key;
};
constexpr WantedName kWantedNames[] = {
    {"deepseek", "type"},
    {"hunyuan_v1_dense", "type"},
    {"internlm2", "type"},
    {"internlm3", "rope_type"},
    {"nemotron", "type"},
    {"phi3", "type"},
    {"qwen2_moe", "type"}};

// Classes that read rope_parameters by layer type.
constexpr const char* kByLayer[] = {"gemma4_text", "laguna", "mellum"};

void name_type(const ModelClass& type, ClassConfig& config) {
  const Json* scaling = object_at(config.values, "rope_scaling");
  const auto* wanted =
      std::ranges::find(kWantedNames, type.name, &WantedName::model_class);
  if (!scaling || wanted == std::end(kWantedNames)) {
    return;
  }
  const auto name = rope_type(*scaling);
  if (name == "default") {
    set_key(config, "rope_scaling", nullptr);
    return;
  }
  Json named = *scaling;
  named[wanted->key] = name;
  // phi3's, deepseek's and nemotron's want a float.
  if (auto factor = named.find("factor");
      factor != named.end() && factor->is_number_integer()) {
    *factor = factor->get<double>();
  }
  if (named.dump() != scaling->dump()) {
    set_key(config, "rope_scaling", std::move(named));
  }
}

void spread_parameters(const ModelClass& type, ClassConfig& config) {
  const Json* given = object_at(config.values, "rope_parameters");
  if (!given) {
    return;
  }
  const auto parts = split_by_layer(*given);
  if (type.reads("rope_parameters")) {  // and takes from them what is absent
    if (parts.by_layer) {
      set_key(config, "rope_parameters", parts.full);
    }
    auto& values = config.values;
    if (has_key(parts.full, "rope_theta")) {
      if (!has_key(values, "rope_theta")) {
        values["rope_theta"] = parts.full.at("rope_theta");
      }
      note_other(config, "rope_theta", parts.full.at("rope_theta"));
    }
    if (!has_key(values, "rope_scaling")) {
      values["rope_scaling"] = parts.full;
    }
    note_partial(type, parts.full, config);
    return;
  }
  const Json before = config.patch;
  take(type, "rope_theta", parts.full, "rope_theta", config);
  take(type, "rope_local_base_freq", parts.local, "rope_theta", config);
  take(type, "rotary_emb_base", parts.full, "rope_theta", config);
  take(type, "rotary_pct", parts.full, "partial_rotary_factor", config);
  for (const char* key :
       {"partial_rotary_factor", "original_max_position_embeddings"}) {
    take(type, key, parts.full, key, config);
  }
  if (rope_type(parts.full) != "default" &&
      !has_key(config.values, "rope_scaling")) {
    const auto scaling = scaling_of(parts.full);
    if (type.reads("rope_scaling")) {
      set_key(config, "rope_scaling", scaling);
    } else {
      config.values["rope_scaling"] = scaling;  // for a note
    }
  }
  note_partial(type, parts.full, config);
  note_spelling(before, config);
}

}  // namespace

void read_rope_parameters(const ModelClass& type, ClassConfig& config) {
  if (std::ranges::find(kByLayer, type.name) != std::end(kByLayer)) {
    return;
  }
  if (reads_parameters_alone(type)) {
    const Json* given = object_at(config.values, "rope_parameters");
    if (given) {
      if (const auto parts = split_by_layer(*given); parts.by_layer) {
        set_key(config, "rope_parameters", parts.full);
      }
    }
    gather_parameters(config);
    return;
  }
  spread_parameters(type, config);
  name_type(type, config);
}

}  // namespace pennyweight
