#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "ops/ops.h"

/// Distilled weight quantization (mlx_lm's dwq): scales and biases of a
/// quantized model trained towards the full-precision one, its codes as they
/// are.
namespace pennyweight {

/// The learning rate of step 0 .. steps - 1: a linear warm-up over a tenth of
/// the steps, then half a cosine down to a tenth of `peak`.
double scheduled_rate(double peak, int64_t step, int64_t steps);

/// Clips by what is usual for this run: gradients longer than twice the running
/// mean of norms so far are scaled down to that.
class GradientClip {
 public:
  explicit GradientClip(double mean = 0) : mean_(mean) {}
  /// What to multiply gradients of this norm with; 1 for the first.
  double factor(double norm);
  double mean() const {
    return mean_;
  }

 private:
  double mean_;  // 0: none yet
};

struct AdamStep {
  double rate = 0;
  double factor = 1;  // of the gradients
  int64_t step = 1;   // from 1, for the correction of the moments' bias
};

/// Scales and biases of one affine module as float32 masters, with Adam's
/// moments (arXiv 1412.6980, b1 0.9, b2 0.999, eps 1e-8). A group's weights are
/// scale (code - c) + centre with c the middle code, so that the two parameters
/// have little to do with each other; biases follow, bias = centre - c scale.
class TrainedGroups {
 public:
  /// Of a packed affine weight.
  explicit TrainedGroups(const ops::QuantizedWeight& start);

  const ops::QuantizedWeight& start() const {
    return start_;
  }
  /// The weight as trained so far, in the types of the start's.
  ops::QuantizedWeight weight() const;
  /// The mean of the start's |scale|, a code's worth.
  double unit() const;
  /// One step down the gradients, which are of the start's form.
  void update(const ops::GroupGradients& gradients, const AdamStep& step);
  /// The start again, without moments.
  void reset();

  /// Masters and moments by name, float32 [out, in / group_size]: views, to
  /// be saved; and back.
  std::map<std::string, mx::array> state() const;
  void restore(const std::map<std::string, mx::array>& state);

 private:
  struct Parameter {
    mx::array value, m, v;
  };

  ops::QuantizedWeight start_;
  float middle_;  // c
  Parameter scale_;
  Parameter centre_;
};

/// Whether dwq trains it, a QuantSpec or packed weight: affine, and fewer than
/// 8 bits, as mlx_lm has it.
template <class Quantized>
bool is_trained(const Quantized& quantized) {
  return quantized.mode == "affine" && quantized.bits < 8;
}

}  // namespace pennyweight
