#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "format/quant_spec.h"

namespace pennyweight {

/// What a class of mlx-lm that no family is read as makes of tensors by their
/// names. In patterns a '*' stands for a number. The table of all such classes
/// is made from the pinned mlx-lm by tools/class_names.py, which has tried each
/// rule on the class's own sanitize; `make check` compares the two.
struct ClassNames {
  struct Tensor {
    enum class Kind { linear, embedding, bias, parameter };

    Kind kind = Kind::parameter;
    size_t dims = 0;
    bool always = false;  // mlx-lm can't load without it
    bool untied = false;  // there only where the head is a module
    bool kept = false;    // the class's quant_predicate says no
    /// It says no where the same parent has this tensor, too; empty: anywhere.
    std::string kept_beside{};
    bool keeps_type = false;         // the class's cast_predicate does
    bool thin = false;               // its last axis is 1
    std::optional<QuantSpec> own{};  // what quant_predicate says instead
    /// A layer has all tensors of such a number, or none; empty: of its own.
    std::string with{};
    /// Of a stack, the key of config.json that has the number of its matrices.
    std::string count{};
  };

  std::string name;
  /// Why it is not taken; empty: it is.
  std::string not_taken;
  /// "layers", "count", "beyond", "recipes", "dropped", "tied", "not_where":
  /// see entry() in tools/class_names.py.
  Json facts;
  std::map<std::string, Tensor> tensors;
  /// Of tools/class_names_rules.py, by what they are made from.
  std::map<std::string, std::vector<Json>> rules;
};

/// What mlx-lm loads such a model as; absent where that is no class of the
/// table. `architectures` is config.json's, or null.
std::optional<ClassNames> find_class_names(
    const std::string& model_type,
    const Json& architectures);

/// The name with '*' for its numbers, and as it is read where some of these
/// count: what is looked up in a table, the most exact first.
std::vector<std::string> patterns_of(const std::string& name);
/// The numbers that stand between dots.
std::vector<std::string> numbers_in(const std::string& name);
/// `pattern` with these in the place of its '*'.
std::string filled(
    std::string pattern,
    const std::vector<std::string>& numbers,
    char mark = '*');

}  // namespace pennyweight
