#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/json_fwd.h"
#include "format/quant_spec.h"

namespace pennyweight {

/// What becomes of each module with a matrix: a spec, or nothing (it stays in
/// its float type) with the reason.
struct QuantPlan {
  struct Entry {
    std::optional<QuantSpec> spec;
    std::string reason{};  // why it is kept
    /// It came packed so and stays as it is.
    bool published = false;
    /// The user asked for it to be kept.
    bool asked = false;
  };

  QuantSpec common;
  /// By mlx-lm's module path.
  std::map<std::string, Entry> modules;

  const Entry& at(const std::string& path) const;  // invalid_argument
};

/// A module as a plan sees it.
struct PlannedModule {
  std::string path;
  int64_t in = 0;
  bool packable = true;  // else it is kept
  /// What it gets whatever is common, as mlx-lm's model class asks.
  std::optional<QuantSpec> own = std::nullopt;
  /// It is kept, as the class asks, but where a recipe says otherwise.
  bool own_kept = false;
};

/// Why a module that is not packable is kept.
inline constexpr const char* kNotPackable =
    "mlx-lm holds this matrix as a plain parameter";

/// mlx_lm.convert's mixed recipes: mixed_2_6, mixed_3_4, mixed_3_6, mixed_4_6.
const std::vector<std::string>& quant_recipes();

inline constexpr const char* kClassKeeps = "mlx-lm's class asks for that";

/// Every module gets `common`, or what `recipe` (one of quant_recipes(), or
/// empty) gives it among `num_blocks` blocks; one whose rows don't divide into
/// groups of common is kept, as mlx_lm.convert keeps it.
QuantPlan make_plan(
    const std::vector<PlannedModule>& modules,
    const QuantSpec& common,
    const std::string& recipe,
    int num_blocks);

/// The `quantization` object of mlx-lm's config.json: the common spec, then an
/// object for each module that differs and false for each that is kept.
Json to_json(const QuantPlan& plan);

}  // namespace pennyweight
