#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "pass/block_stream.h"

namespace pennyweight {

/// What a method may know of the inputs x of linears that share them, summed
/// over tokens; float32. x_full and r_full are input and residual stream of
/// the full-precision model at the same tokens.
struct InputStatistics {
  int64_t tokens = 0;
  mx::array hessian;                      // [in, in], sum of x x^T
  std::optional<mx::array> input_shift;   // [in, in], sum of (x_full - x) x^T
  std::optional<mx::array> output_shift;  // [hidden, in], sum of
                                          // (r_full - r) x^T, where the
                                          // output is added to r; rows
                                          // by limit_rows
  std::optional<mx::array> magnitudes;    // [in], sum of |x|
};

/// The sums under way.
class StatisticsSum {
 public:
  /// `shifted` is in for an input_shift, `hidden` the residual's width for an
  /// output_shift; else they are 0.
  StatisticsSum(int in, int shifted, int hidden, bool magnitudes);
  /// x [tokens, in], then x_full [tokens, in] and r_full - r [tokens, hidden]
  /// where there are shifts.
  void add(const std::vector<mx::array>& parts);
  InputStatistics finish(const std::optional<mx::array>& divisors) const;

 private:
  int in_;
  int shifted_;
  int hidden_;
  bool magnitudes_;
  int64_t tokens_ = 0;
  mx::array sum_;
  mx::array sizes_;
};

/// What to sum, and over which batches.
struct StatisticsRequest {
  ModuleSpec module;       // that reads the inputs
  size_t fit_batches = 0;  // the first ones; the others are held out
  bool magnitudes = false;
  /// What inputs of the full-precision model are divided by, [in].
  std::optional<mx::array> divisors = std::nullopt;
};

/// Rows of [tokens, hidden] that are longer than 4 times the median one, cut to
/// that. Tokens with massive activations (arXiv 2402.17762) lose more in the
/// residual stream than all others together, and what would be fitted to them
/// would be lost on the others.
mx::array limit_rows(const mx::array& lost);

/// The sums that a module's statistics need; with shifts of a full stream
/// where `shifts`.
StatisticsSum start_statistics(
    const BlockSpec& spec,
    const ModuleSpec& module,
    bool shifts,
    bool magnitudes);
/// Adds what the module reads of a batch. Its streams must have come to the
/// module's step.
void add_statistics(
    const BlockStream& stream,
    const BlockStream* full,
    const TokenBatch& batch,
    size_t index,
    const ModuleSpec& module,
    StatisticsSum& sum);

/// Sums over what the module reads; shifts are of `full` where it is not
/// null. `arrive` is called for each batch before it is looked at, for those
/// held out too: it brings the streams to the module's step. Inputs are
/// multiplied in their own type and summed in float32; differences of residuals
/// are rounded to that type first.
InputStatistics collect_statistics(
    const BlockStream& stream,
    const BlockStream* full,
    const std::vector<TokenBatch>& batches,
    const StatisticsRequest& request,
    const std::function<void(size_t batch)>& arrive);

}  // namespace pennyweight
