#pragma once

#include <optional>
#include <vector>

#include "ops/ops.h"
#include "ops/primitive.h"

namespace pennyweight::ops {

/// What of a head's side stands among a primitive's inputs: x, weight and
/// perhaps the bias, one after the other.
struct SideParts {
  bool present = false;
  bool bias = false;
  float cap = 0;
};

inline SideParts append_side(
    std::vector<mx::array>& inputs,
    const std::optional<HeadRows>& side) {
  if (!side) {
    return {};
  }
  inputs.push_back(side->x);
  inputs.push_back(side->weight);
  if (side->bias) {
    inputs.push_back(*side->bias);
  }
  return {true, side->bias.has_value(), side->cap};
}

/// A primitive that reads heads.
class HeadPrimitive : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

 protected:
  /// The side that begins at `next`, which goes on to what follows it.
  kernels::HeadSide side_of(
      const SideParts& parts,
      const std::vector<mx::array>& inputs,
      size_t& next) {
    if (!parts.present) {
      return {};
    }
    const auto x = with_even_rows(inputs[next++]);
    const auto weight = with_even_rows(inputs[next++]);
    kernels::HeadSide side{
        .k = x.shape(1), .x = matrix_of(x), .weight = matrix_of(weight)};
    if (parts.bias) {
      side.bias = vector_of(without_gaps(inputs[next++]));
    }
    side.cap = parts.cap;
    return side;
  }
};

}  // namespace pennyweight::ops
