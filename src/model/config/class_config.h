#pragma once

#include <set>
#include <string>
#include <vector>

#include "core/json.h"
#include "model/config/class_keys.h"

namespace pennyweight {

/// A config.json (or its text_config) as a class of mlx-lm would have it.
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
  /// Keys that the class does not read, though transformers computes
  /// something else by them.
  std::vector<std::string> notes;
  /// One for where no block of the spec has a window, else empty.
  std::string window_note{};
};

/// Whether `values` has the key, and not as null.
bool has_key(const Json& values, const std::string& key);
/// In values and patch.
void set_key(ClassConfig& config, const std::string& key, Json value);

ClassConfig class_config(const JsonView& config, const ModelClass& type);

/// Refuses a key that the class reads and that would be overlooked here:
/// `reads` are the keys that were asked for. A value that is the class's
/// default passes. not_supported Error that names the key; corrupt for one
/// that the class wants and that is neither in `values` nor in `patch`.
void check_reads(
    const ClassConfig& config,
    const ModelClass& type,
    const std::set<std::string>& reads,
    const Json& patch,
    const std::string& origin);

}  // namespace pennyweight
