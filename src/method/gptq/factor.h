#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "method/gptq/gptq.h"

namespace pennyweight {

struct GptqHessian::Factor {
  int64_t columns = 0;
  double lambda = 0;
  double damp = 0;
  int64_t dead_inputs = 0;
  std::vector<float> damped;   // H + lambda I [columns, columns], file order
  std::vector<int64_t> order;  // order[i]: the column rounded as the i-th
  std::unique_ptr<float[]> feedback;  // A [columns, columns], order of
                                      // rounding; zero above the diagonal and
                                      // on it
  std::vector<float> pivots;          // D^2 [columns], order of rounding
};

namespace gptq {

/// Factors `matrix` [n, n] (symmetric positive definite; the lower triangle
/// is read) in place as (A + I)^T D^2 (A + I): A below the diagonal, zeros
/// above and on it, D^2 to `pivots`. `floor` > 0 is the damping, which
/// the pivots are above where the rest has no negative eigenvalue: one that is
/// below by float32's rounding is set to it. False, leaving rubbish, when one
/// is too small to go on with, and when floor is not positive.
bool factor_in_place(
    float* matrix,
    int64_t n,
    double floor,
    std::vector<float>& pivots);

}  // namespace gptq

}  // namespace pennyweight
