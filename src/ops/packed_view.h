#pragma once

#include <string>

#include "ops/primitive.h"

/// Packed weights among an op's inputs: codes, scales and, in the affine mode,
/// biases, one after the other.
namespace pennyweight::ops {

struct PackedFormat {
  kernels::QuantMode mode;
  int bits;
  int group;

  bool operator==(const PackedFormat&) const = default;
  /// How many arrays such a weight is.
  size_t arrays() const {
    return mode == kernels::QuantMode::affine ? 3 : 2;
  }
};

PackedFormat format_of(const QuantizedWeight& weight);
/// Input width of the dense weight.
int columns_of(const QuantizedWeight& weight);

void append_weight(Arrays& inputs, const QuantizedWeight& weight);

/// The weight whose arrays begin at input `first`.
QuantizedWeight
weight_from(const PackedFormat& format, const Arrays& inputs, size_t first);
kernels::QuantizedMatrix
packed_view(const PackedFormat& format, CpuWork& work, size_t first);

}  // namespace pennyweight::ops
