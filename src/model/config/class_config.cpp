#include "model/config/class_config.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"
#include "core/json.h"
#include "model/config/class_rope.h"
#include "model/config/unread_keys.h"

namespace pennyweight {

namespace {

// Rewrites integers that were written as 256.0: Python takes no such size.
void make_integers(const ModelClass& type, ClassConfig& config) {
  for (const ClassKey& key : type.keys) {
    auto it = config.values.find(key.name);
    if (key.kind != ClassKey::Kind::integer || it == config.values.end() ||
        !it->is_number_float()) {
      continue;
    }
    const double value = it->get<double>();
    if (std::floor(value) == value && std::fabs(value) < 9e15) {
      set_key(config, key.name, static_cast<int64_t>(value));
    }
  }
}

// A key with which mlx-lm can't run if it is null, and the value that a null
// stands for where the class has no default either: nothing is scaled, grouped
// or shared.
struct NullKey {
  const char* name;
  Json neutral;
};

const std::vector<NullKey>& null_keys() {
  static const std::vector<NullKey> keys = {
      {"decoder_sparse_step", 1},
      {"moe_layer_freq", 1},
      {"moe_routed_scaling_factor", 1.0},
      {"n_group", 1},
      {"num_kv_shared_layers", 0},
      {"num_loops", 1},
      {"partial_rotary_factor", 1.0},
      {"routed_scaling_factor", 1.0},
      {"router_jitter_noise", 0.0},
      {"topk_group", 1},
      {"topk_method", "noaux_tc"}};
  return keys;
}

// The head dimension that transformers takes where the config leaves it open;
// null where the config has not what it follows from.
Json head_width(const Json& values) {
  const Json hidden = values.value("hidden_size", Json());
  const Json heads = values.value("num_attention_heads", Json());
  if (!hidden.is_number_integer() || !heads.is_number_integer() ||
      heads.get<int64_t>() < 1) {
    return {};
  }
  return hidden.get<int64_t>() / heads.get<int64_t>();
}

// Replaces nulls that are not the class's own defaults. mlx-lm takes one for
// false where a boolean is asked for, and can't run with one elsewhere: an
// output gets the value that is taken for it here.
void settle_nulls(const ModelClass& type, ClassConfig& config) {
  for (const ClassKey& key : type.keys) {
    const std::string name = key.name;
    const auto it = config.values.find(name);
    if (it == config.values.end() || !it->is_null() ||
        name == "tie_word_embeddings") {  // the tensors decide that
      continue;
    }
    const Json own = key.fallback ? Json::parse(key.fallback) : Json();
    const auto known = std::ranges::find(null_keys(), name, &NullKey::name);
    if (key.kind == ClassKey::Kind::boolean && (!key.fallback || own == true)) {
      set_key(config, name, false);
    } else if (name == "head_dim" && (!key.fallback || !own.is_null())) {
      set_key(config, name, head_width(config.values));
    } else if (known != null_keys().end()) {
      set_key(config, name, own.is_null() ? known->neutral : own);
      config.notes.push_back(
          name + " is null, which is taken for " +
          config.values.at(name).dump());
    }
  }
}

// The number, from 1, of the first layer with full attention: the period of
// such layers, if they have one. One past the last layer where there is none.
int64_t period_of(const Json& types) {
  return std::ranges::find(types, Json("full_attention")) - types.begin() + 1;
}

// The first layer, from 0, whose type is not what it would be if every
// `period`th layer had full attention and no other; types.size() where there
// is none.
size_t first_other(const Json& types, int64_t period) {
  for (size_t i = 0; i < types.size(); ++i) {
    const bool full = (static_cast<int64_t>(i) + 1) % period == 0;
    if (full != (types.at(i) == "full_attention")) {
      return i;
    }
  }
  return types.size();
}

// Sets `key`, by which the class takes every Nth layer as one with full
// attention, from the list of all layers that newer configs have instead.
void read_layer_types(
    const ModelClass& type,
    const char* key,
    ClassConfig& config) {
  const ClassKey* own = type.find(key);
  if (!own || own->kind != ClassKey::Kind::integer ||
      type.reads("layer_types")) {
    return;
  }
  const std::string hidden = "_" + std::string(key);
  if (!has_key(config.values, key) && has_key(config.values, hidden)) {
    set_key(config, key, Json(config.values.at(hidden)));
  }
  const Json types = config.values.value("layer_types", Json());
  if (!types.is_array() || types.empty()) {
    return;
  }
  if (!has_key(config.values, key)) {
    if (const auto period = period_of(types);
        first_other(types, period) == types.size()) {
      set_key(config, key, period);
      return;
    }
  }
  const Json every = has_key(config.values, key)
      ? config.values.at(key)
      : Json::parse(own->fallback ? own->fallback : "null");
  if (!every.is_number_integer() || every.get<int64_t>() <= 0) {
    return;
  }
  const auto other = first_other(types, every.get<int64_t>());
  if (other < types.size()) {
    config.notes.push_back(
        "layer_types is not used, as in mlx-lm, which takes every " +
        every.dump() + "th layer as full attention (" + key + "): layer " +
        std::to_string(other) + " is another one there");
  }
}

// Sets the numbers of experts, for which each family has a key of its own, and
// newer configs use the keys of others.
void read_expert_names(const ModelClass& type, ClassConfig& config) {
  const std::array<std::vector<const char*>, 2> same = {
      {{"num_experts", "num_local_experts", "n_routed_experts"},
       {"num_experts_per_tok", "experts_per_token"}}};
  for (const auto& names : same) {
    for (const char* name : names) {
      if (!type.reads(name) || has_key(config.values, name)) {
        continue;
      }
      for (const char* other : names) {
        if (!type.reads(other) && has_key(config.values, other)) {
          set_key(config, name, Json(config.values.at(other)));
          break;
        }
      }
    }
  }
}

// Adds keys that a class can't do without, though transformers leaves them out
// where they have no effect.
void add_neutral(const ModelClass& type, ClassConfig& config) {
  const std::vector<std::pair<const char*, Json>> neutral = {
      {"attention_bias", false},
      {"decoder_sparse_step", 1},
      {"mlp_bias", false},
      {"mlp_only_layers", Json::array()},
      {"rope_scaling", nullptr},
      {"use_qk_norm", false}};
  // OLMoE-1B-7B-0924 was published without this key, for which transformers
  // takes 1e-5.
  if (type.name == "olmoe" && !has_key(config.values, "rms_norm_eps")) {
    set_key(config, "rms_norm_eps", 1e-5);
  }
  for (const auto& [name, value] : neutral) {
    const ClassKey* key = type.find(name);
    if (key && !key->fallback && !config.values.contains(name)) {
      set_key(config, name, value);
    }
  }
}

void add_defaults(const ModelClass& type, Json& values) {
  for (const ClassKey& key : type.keys) {
    if (key.fallback && !values.contains(key.name)) {
      values[key.name] = Json::parse(key.fallback);
    }
  }
}

}  // namespace

bool has_key(const Json& values, const std::string& key) {
  auto it = values.find(key);
  return it != values.end() && !it->is_null();
}

void set_key(ClassConfig& config, const std::string& key, Json value) {
  config.values[key] = value;
  config.patch[key] = std::move(value);
}

ClassConfig class_config(const JsonView& given, const ModelClass& type) {
  ClassConfig config;
  config.values = given.json();
  settle_nulls(type, config);
  make_integers(type, config);
  // A class of several modalities gives the whole config to its language model
  // where there is no text_config: that model's class then reads the rest.
  if (type.reads("text_config") && !has_key(config.values, "text_config")) {
    add_defaults(type, config.values);
    return config;
  }
  read_rope_parameters(type, config);
  read_layer_types(type, "sliding_window_pattern", config);
  read_layer_types(type, "full_attention_interval", config);
  read_expert_names(type, config);
  add_neutral(type, config);
  note_unread_keys(type, config);
  add_defaults(type, config.values);
  return config;
}

void check_reads(
    const ClassConfig& config,
    const ModelClass& type,
    const std::set<std::string>& reads,
    const Json& patch,
    const std::string& origin) {
  for (const ClassKey& key : type.keys) {
    auto it = config.values.find(key.name);
    // Without a text_config the config itself stands for it.
    if (it == config.values.end() && !key.fallback &&
        !patch.contains(key.name) && key.name != std::string("text_config")) {
      throw corrupt_error(
          "model",
          origin + ": \"" + key.name +
              "\" is missing, without which mlx-lm can't load the model");
    }
    const bool by_default = it == config.values.end() ||
        (key.fallback && *it == Json::parse(key.fallback));
    if (!by_default && !reads.contains(key.name) &&
        key.name != std::string("model_type")) {
      throw not_supported_error(
          "model",
          origin + ": the key \"" + key.name +
              "\" changes what mlx-lm computes (its class " + type.name +
              " reads it) and is not known here");
    }
  }
}

}  // namespace pennyweight
