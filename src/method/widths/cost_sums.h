#pragma once

#include <map>
#include <optional>
#include <string>

#include "method/learned/rounding_loss.h"
#include "model/gradients.h"
#include "pass/token_batches.h"

namespace pennyweight {

/// What costs are made of, summed over the batches that go back through one
/// block: each linear's gradients and its inputs weighed by them, and the
/// Hessian of each kind of input. Stacks of experts are one linear.
class CostSums {
 public:
  /// Of one linear, or of a stack of experts.
  struct Linear {
    GradientSums gradients;
    std::optional<mx::array> metric;
  };

  explicit CostSums(const BlockSpec& spec);

  /// Takes a batch back through the block: x is its input and dy the gradient
  /// by its output. Gives the gradient by x, evaluated.
  mx::array add(
      const BlockWeights& weights,
      const TokenBatch& batch,
      const mx::array& x,
      const mx::array& dy,
      const ForwardContext& context);

  const std::map<std::string, ModuleSpec>& modules() const {
    return modules_;
  }
  const std::map<std::string, Linear>& sums() const {
    return sums_;
  }
  mx::array hessian(const std::string& input_id) const {
    return *hessians_.at(input_id);
  }

 private:
  void add(const TokenBatch& batch, std::map<std::string, LinearTrace> linears);

  const BlockSpec& spec_;
  std::map<std::string, ModuleSpec> modules_;
  std::map<std::string, Linear> sums_;
  std::map<std::string, std::optional<mx::array>> hessians_;  // by input_id
};

}  // namespace pennyweight
