#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "format/quant_spec.h"
#include "ops/ops.h"

/// Mixed precision by sensitivity. Widths are chosen to lose least within a
/// number of bytes.
namespace pennyweight {

/// A way to store a module: packed, or (absent) in floats.
using Candidate = std::optional<QuantSpec>;

/// "4:64" (affine bits and group size) or "floats", and back from a list such
/// as "2:64,4:32,8:64,bf16" (bf16, fp16, fp32 and floats all mean: as it is).
/// invalid_argument Error for what is neither.
std::string candidate_name(const Candidate& candidate);
std::vector<Candidate> parse_candidates(const std::string& list);

/// What rounding a weight W does to the loss, from its gradient g at the point
/// where all weights are rounded by one low candidate.
struct RoundingEffect {
  double alignment = 0;  // sum of g (Q_low(W) - Q(W)), as mlx_lm's
  double error = 0;      // sum of (Q(W) - W)^2
};

/// weight, low and gradient are [out, in], gradient float32; `low` is
/// dequantized. One effect a candidate.
std::vector<RoundingEffect> rounding_effects(
    const mx::array& weight,
    const mx::array& low,
    const mx::array& gradient,
    const std::vector<Candidate>& candidates);

/// The loss that a module adds under each candidate. The loss is taken as
/// quadratic around W: at low it is half of `whole` = sum of g (Q_low(W) - W),
/// elsewhere as much less as the squared error is. Where `whole` is not
/// positive, which is noise, it is taken as 0.
std::vector<double> estimate_losses(
    double whole,
    double low_error,
    const std::vector<RoundingEffect>& effects);

/// One module's alternatives.
struct Alternatives {
  std::vector<int64_t> bytes;
  std::vector<double> losses;
};

/// The alternative for each module with the least sum of losses whose bytes
/// are at most `budget` together: a multiple-choice knapsack, solved by dynamic
/// programming over bytes in coarse units and then by exchanges of one or two
/// modules. At most 256 alternatives a module. invalid_argument Error that says
/// how far the budget is below the least.
std::vector<size_t> choose_alternatives(
    const std::vector<Alternatives>& modules,
    int64_t budget);

}  // namespace pennyweight
