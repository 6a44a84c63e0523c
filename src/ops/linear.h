#pragma once

#include "ops/primitive.h"

/// What dense and packed linears share, and the products of their gradients.
namespace pennyweight::ops {

/// Bias and residual of a linear: the last inputs of its op, where they are
/// present.
class LinearExtras {
 public:
  /// Adds to `inputs` what is present.
  LinearExtras(
      Arrays& inputs,
      const std::optional<mx::array>& bias,
      const std::optional<mx::array>& residual)
      : first_(inputs.size()),
        bias_(bias.has_value()),
        residual_(residual.has_value()) {
    for (const auto& extra : {bias, residual}) {
      if (extra) {
        inputs.push_back(*extra);
      }
    }
  }

  /// The type that a fallback's product has before they are added.
  mx::Dtype product_type(mx::Dtype out) const {
    return residual_ ? mx::float32 : out;
  }
  mx::array add_to(mx::array product, const Arrays& inputs, mx::Dtype out)
      const;

  /// Fills bias, residual and out of a kernel's arguments.
  template <class Args>
  void fill(CpuWork& work, Args& args) const {
    if (bias_) {
      args.bias = work.vector(first_);
    }
    if (residual_) {
      args.residual = work.matrix(at_residual());
      args.out = work.result_over({at_residual()});
    } else {
      args.out = work.result();
    }
  }

  /// The gradient by input i, which is one of them.
  mx::array gradient(const Arrays& inputs, const mx::array& dy, size_t i) const;

 private:
  size_t at_residual() const {
    return first_ + (bias_ ? 1 : 0);
  }

  size_t first_;
  bool bias_;
  bool residual_;
};

/// dy [..., out] times weight [out, in], in dy's type: the gradient by x of
/// linear(x, weight).
mx::array linear_transposed(const mx::array& dy, const mx::array& weight);
/// And by the weight, float32 [out, in]: dy [..., out] transposed times x.
mx::array weight_gradient(const mx::array& dy, const mx::array& x);

}  // namespace pennyweight::ops
