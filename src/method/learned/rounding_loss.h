#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "method/gptq/gptq.h"
#include "method/widths/dynamic.h"

/// What rounding a linear adds to the KL from the full-precision model, to
/// second order (the Fisher information, whose block of a linear's weight is
/// taken as a sum over tokens). With x what the linear reads at a token, g the
/// gradient by what it makes of it, and e = Q - W,
///   1/2 sum_t (g e x)^2 ~ 1/2 sum_t sum_r g_r^2 (e_r x)^2,
/// and g_r^2 ~ a b_r, a of the token and b of the row (output channel), is
///   1/2 sum_r b_r e_r G e_r^T,  G = sum_t a_t x x^T.
/// With all a alike, the inputs that are largest (and matter least) would
/// count most: over 20 linears of SmolLM2-135M at 3 bits the estimates are off
/// the KL of each alone by 1.2 (root mean square, as a factor), and would be
/// by 1.8, the worst by 5.
namespace pennyweight {

/// Sums over tokens of g_r^2, of a linear or of each of a stack's parts.
class GradientSums {
 public:
  explicit GradientSums(int64_t out, int64_t parts = 1);
  /// dy [rows, out], evaluated; `part` uint32 [rows], evaluated, says whose
  /// each row is. Gives the rows' a, the mean of g_r^2 over r, float32 [rows,
  /// 1]. The same for any number of threads.
  mx::array add(const mx::array& dy, const std::optional<mx::array>& part);
  /// b_r of a part: its sum of g_r^2 over the sum of all a.
  std::vector<float> row_weights(int64_t part = 0) const;

 private:
  int64_t out_;
  std::vector<double> sums_;  // [parts, out]
  double total_ = 0;
};

/// A linear and what it costs by.
struct RoundedLinear {
  mx::array weight;  // [out, in], of the type that scales are to have
  mx::array metric;  // G, float32 [in, in]
  std::vector<float> row_weights;
  const GptqHessian& hessian;  // of what it reads, for GPTQ
};

/// 1/2 sum_r b_r e_r G e_r^T, e float32 [out, in].
double rounding_loss(
    const mx::array& error,
    const mx::array& metric,
    const std::vector<float>& row_weights);

/// The same of rounding `weight` [out, in] to nearest, from G's diagonal alone:
/// nearest's errors are as good as independent of each other.
double nearest_loss(
    const mx::array& weight,
    const QuantSpec& spec,
    const std::vector<float>& diagonal,
    const std::vector<float>& row_weights);

/// The spec of GPTQ at `bits` over rows of `in` weights: groups of 64 or, where
/// they do not fit, 32; none where neither does.
Candidate gptq_candidate(int bits, int64_t in);

/// What GPTQ loses at one spec.
struct LossPoint {
  QuantSpec spec;
  double loss = 0;
};
using NearestFn = std::function<double(const QuantSpec&)>;

/// The loss of each candidate width: 0 for a module that stays unquantized, NaN
/// for a width whose groups do not divide `in`. Between the measured points a
/// candidate's loss is that of rtn, scaled by what GPTQ leaves of rtn's loss at
/// the nearest measured width (the higher of two that are equally near).
/// Without points it is rtn's.
std::vector<double> spread_losses(
    const std::vector<LossPoint>& points,
    const std::vector<Candidate>& candidates,
    int64_t in,
    const NearestFn& nearest);

/// spread_losses() with GPTQ run at each of `gptq_bits`: on every `row_step`-th
/// tile of 16 rows, of which the others lose as much more or less as they do
/// rounded to nearest.
std::vector<double> rounding_losses(
    const RoundedLinear& linear,
    const std::vector<Candidate>& candidates,
    const std::vector<int>& gptq_bits,
    int64_t row_step = 1);

}  // namespace pennyweight
