#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "ops/ops.h"

namespace pennyweight {

/// The rotary embedding of one attention, as mlx-lm's rope_utils reads it from
/// the config. Pair i of dims / 2 is turned by position * frequency_i.
struct RopeSpec {
  enum class Scaling {
    none,
    linear,
    dynamic,
    llama3,
    yarn,
    longrope,
    proportional,
  };

  int dims = 0;              // the first dims of each head are rotated
  double base = 10000;       // theta
  bool traditional = false;  // pairs (2i, 2i + 1) instead of (i, i + dims / 2)

  Scaling scaling = Scaling::none;
  double factor = 1;
  int max_positions = 0;             // dynamic, longrope
  double original_positions = 0;     // llama3, yarn, longrope
  double low_frequency_factor = 1;   // llama3
  double high_frequency_factor = 4;  // llama3
  double beta_fast = 32;             // yarn
  double beta_slow = 1;              // yarn
  double mscale = 1;                 // yarn
  double mscale_all_dim = 0;         // yarn
  std::vector<double> long_factor;   // longrope: dims / 2 of them, or one
  int rotated_dims = 0;              // proportional
  double long_mscale = 0;  // longrope: scales inputs; 0: a formula gives it
};

/// Fills the scaling part of `rope`, of which dims, base and traditional are
/// set, from a config's rope_scaling object. `notes` get what mlx-lm reads
/// otherwise than transformers. corrupt Error for a missing or senseless
/// parameter, not_supported for an unknown type.
void read_rope_scaling(
    const JsonView& scaling,
    std::optional<int> max_positions,
    RopeSpec& rope,
    std::vector<std::string>& notes);

/// Whether the rope type of a rope_scaling object is other than "default".
bool is_scaled(const JsonView& scaling);

/// The frequencies for positions 0 .. positions - 1; only dynamic scaling
/// depends on `positions`. Lazy; float32 with the roundings of mlx-lm's
/// formulas.
ops::RopeTable make_rope_table(const RopeSpec& rope, int positions);

}  // namespace pennyweight
