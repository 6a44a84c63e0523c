#pragma once

#include <set>
#include <string>
#include <vector>

#include "core/json.h"
#include "model/config/class_keys.h"

namespace pennyweight {

/// A config.json (or its text_config) with the keys and defaults of a class of
/// mlx-lm.
struct ClassConfig {
  /// All keys of the config, with the class's defaults for those that are
  /// absent. What transformers 5 spells otherwise than the class
  /// (rope_parameters, flat or by layer type; sliding_window_pattern and
  /// full_attention_interval as layer_types; numbers of experts) stands under
  /// the keys that the class reads, too.
  Json values;
  /// What an output's config needs in addition, so that the class reads the
  /// same there: the keys that were spelled otherwise, those without which it
  /// can't be loaded, and integers that were written as 256.0.
  Json patch = Json::object();
  /// What a user should know of the config: values that stand for a null, and
  /// keys that the class does not read though transformers computes something
  /// else by them.
  std::vector<std::string> notes;
  /// A note for a spec in which no block has a window though the config speaks
  /// of one; or empty.
  std::string window_note{};
};

/// Whether `values` has the key, and not as null.
bool has_key(const Json& values, const std::string& key);
/// Sets a key in both values and patch.
void set_key(ClassConfig& config, const std::string& key, Json value);

/// Reads a config as the class `type` does.
ClassConfig class_config(const JsonView& config, const ModelClass& type);

/// Throws a not_supported Error that names the first key that the class reads
/// and that would be overlooked here: it is not among `reads`, the keys that
/// were asked for, and its value is not the class's default. corrupt for a key
/// that the class can't do without and that is neither in config.values nor in
/// `patch`. `origin` begins the message.
void check_reads(
    const ClassConfig& config,
    const ModelClass& type,
    const std::set<std::string>& reads,
    const Json& patch,
    const std::string& origin);

}  // namespace pennyweight
