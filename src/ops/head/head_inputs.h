#pragma once

#include "ops/primitive.h"

namespace pennyweight::ops {

/// A head's rows among an op's inputs: x, weight and perhaps the bias, one
/// after the other; nothing where there is no such side.
class HeadInputs {
 public:
  HeadInputs(Arrays& inputs, const std::optional<HeadRows>& side)
      : first_(inputs.size()), present_(side.has_value()) {
    if (side) {
      bias_ = side->bias.has_value();
      cap_ = side->cap;
      inputs.push_back(side->x);
      inputs.push_back(side->weight);
      if (bias_) {
        inputs.push_back(*side->bias);
      }
    }
  }

  bool present() const {
    return present_;
  }

  kernels::HeadSide side(CpuWork& work) const {
    if (!present_) {
      return {};
    }
    kernels::HeadSide side{
        .k = work.columns(first_),
        .x = work.matrix(first_),
        .weight = work.matrix(first_ + 1),
        .cap = cap_};
    if (bias_) {
      side.bias = work.vector(first_ + 2);
    }
    return side;
  }

  HeadRows rows(const Arrays& inputs) const {
    HeadRows rows{inputs[first_], inputs[first_ + 1]};
    if (bias_) {
      rows.bias = inputs[first_ + 2];
    }
    rows.cap = cap_;
    return rows;
  }

  /// Its logits, float32, made of MLX's ops: capped, not scaled.
  mx::array logits(const Arrays& inputs) const {
    const auto own = rows(inputs);
    return cap_logits(
        linear(own.x, own.weight, own.bias, mx::float32), own.cap);
  }

 private:
  size_t first_;
  bool present_;
  bool bias_ = false;
  float cap_ = 0;
};

}  // namespace pennyweight::ops
