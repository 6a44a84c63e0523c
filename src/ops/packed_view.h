#pragma once

#include <string>
#include <vector>

#include "ops/primitive.h"

/// Packed weights as the kernels take them.
namespace pennyweight::ops {

struct PackedFormat {
  kernels::QuantMode mode;
  int bits;
  int group;

  bool operator==(const PackedFormat&) const = default;
  /// Arrays of such a weight: codes, scales and, in the affine mode, biases.
  size_t arrays() const {
    return mode == kernels::QuantMode::affine ? 3 : 2;
  }
};

PackedFormat format_of(const QuantizedWeight& weight);
std::string mode_name(kernels::QuantMode mode);

void append_weight(
    std::vector<mx::array>& inputs,
    const QuantizedWeight& weight);

/// The weight whose arrays begin at `first`, all without gaps.
kernels::QuantizedMatrix packed_view(
    const PackedFormat& format,
    const mx::array* first);

}  // namespace pennyweight::ops
