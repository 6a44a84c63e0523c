#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pennyweight {

/// A field of the ModelArgs of a class of mlx-lm: a key of config.json that
/// the class reads.
struct ClassKey {
  enum class Kind { integer, number, boolean, other };

  const char* name;
  Kind kind;
  const char* fallback;  // as JSON; nullptr: mlx-lm can't load without the key
};

/// What a class of mlx-lm reads of its config. The table of all classes that
/// families are read as is made from the pinned mlx-lm by
/// tools/class_keys.py, and `make check` compares the two.
struct ModelClass {
  std::string name;  // "llama"; "qwen3_5.TextModelArgs" inside that module
  std::vector<ClassKey> keys;

  const ClassKey* find(std::string_view key) const;
  bool reads(std::string_view key) const {
    return find(key) != nullptr;
  }
};

/// invalid_argument for a class that is not in the table.
const ModelClass& model_class(const std::string& name);

/// The model type whose class mlx-lm loads for `model_type`: another one where
/// mlx-lm has an alias ("kimi_k2" is loaded as deepseek_v3), or else itself.
std::string without_alias(const std::string& model_type);

/// Whether mlx-lm's code for scaled rotary embeddings asks rope_scaling (or
/// rope_parameters) for this key.
bool is_rope_key(std::string_view key);
/// Whether mlx-lm's loader itself asks config.json for this key.
bool is_loader_key(std::string_view key);

}  // namespace pennyweight
