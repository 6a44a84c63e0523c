#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "format/quant_spec.h"

namespace pennyweight {

/// What is known of a class of mlx-lm that no family is read as: its tensors by
/// their names, and how its sanitize makes them. In patterns of names a '*'
/// stands for a number. The table of all such classes is made from the pinned
/// mlx-lm by tools/class_names.py, which has tried each rule on the class's own
/// sanitize; `make check` compares the two.
struct ClassNames {
  struct Tensor {
    enum class Kind { linear, embedding, bias, parameter };

    Kind kind = Kind::parameter;
    size_t dims = 0;
    bool always = false;  // mlx-lm can't load the model without it
    bool untied = false;  // it exists only where the head is a module
    bool kept = false;    // the class's quant_predicate excludes it
    /// If not empty, quant_predicate excludes it only where the same parent has
    /// a tensor of this name, too.
    std::string kept_beside{};
    bool keeps_type = false;         // the class's cast_predicate excludes it
    bool thin = false;               // its last axis is 1
    std::optional<QuantSpec> own{};  // the width that quant_predicate gives it
    /// A label: a layer has either all tensors that share it, or none. Empty
    /// for a tensor that depends on no others.
    std::string with{};
    /// For a stack, the key of config.json that has the number of its matrices.
    std::string count{};
  };

  /// What an axis of a tensor is in every model that mlx-lm can load: a product
  /// of numbers of config.json, by their keys. No keys: it is not known.
  struct Axis {
    int64_t factor = 1;
    std::vector<std::string> keys;
  };

  std::string name;
  /// Why the class is not taken; empty where it is.
  std::string not_taken;
  /// "layers", "count", "beyond", "recipes", "dropped", "tied", "not_where":
  /// see entry() in tools/class_names.py.
  Json facts;
  std::map<std::string, Tensor> tensors;  // by pattern
  /// By pattern with every number a '*', from tools/class_names_axes.py.
  std::map<std::string, std::vector<Axis>> axes;
  /// Rules of tools/class_names_rules.py, by the pattern of the tensors that
  /// they read.
  std::map<std::string, std::vector<Json>> rules;
};

/// The class as which mlx-lm loads a model; absent where it is not in the
/// table. `architectures` is config.json's, or null.
std::optional<ClassNames> find_class_names(
    const std::string& model_type,
    const Json& architectures);

/// All patterns that a name may stand under in a table: with a '*' in place of
/// none, some or all of its numbers, the most exact first.
std::vector<std::string> patterns_of(const std::string& name);
/// The parts of a name between dots that are numbers.
std::vector<std::string> numbers_in(const std::string& name);
/// `pattern` with the first numbers in place of its `mark`s, one for each.
std::string filled(
    std::string pattern,
    const std::vector<std::string>& numbers,
    char mark = '*');

}  // namespace pennyweight
