#include "calibration/statistics.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

namespace pennyweight {

InputStatistics collect_statistics(
    BlockStream& stream,
    BlockStream* full,
    const std::vector<TokenBatch>& batches,
    size_t fit_batches,
    BlockStep step,
    int in,
    bool magnitudes,
    const std::optional<mx::array>& divisors) {
  const bool adds = full && adds_to_residual(stream.spec(), step);
  const int hidden = adds ? static_cast<int>(stream.spec().attention.o.out) : 0;
  const int shifted = full ? in : 0;
  // Products with x of x, of x_full and of r_full - r, in one pass over x. The
  // second is made a difference at the end, since products of what is in
  // bfloat16 are exact and a difference would be rounded.
  auto sum = mx::zeros({in + shifted + hidden, in});
  auto sizes = mx::zeros({in});
  int64_t tokens = 0;
  for (size_t i = 0; i < batches.size(); ++i) {
    auto x = stream.step_input(step, i);
    auto x_full = full ? full->step_input(step, i) : x;
    if (i >= fit_batches) {
      mx::eval(x, x_full);
      continue;
    }
    tokens += batches[i].count;
    auto picked = pick_tokens(batches[i], x);
    std::vector<mx::array> parts{picked};
    if (full) {
      parts.push_back(pick_tokens(batches[i], x_full));
    }
    if (adds) {
      auto lost = ops::difference(
          full->residual(step, i), stream.residual(step, i), picked.dtype());
      parts.push_back(pick_tokens(batches[i], lost));
    }
    sum = ops::gram_add(sum, parts, picked);
    if (magnitudes) {
      sizes = ops::magnitudes_add(sizes, picked);
    }
    mx::eval(sum, sizes);
  }
  const auto rows = [&](int first, int count) {
    return mx::contiguous(mx::slice(sum, {first, 0}, {first + count, in}));
  };
  InputStatistics sums{
      tokens, rows(0, in), std::nullopt, std::nullopt, std::nullopt};
  if (magnitudes) {
    sums.magnitudes = sizes;
  }
  mx::eval(sums.hessian);
  if (full) {
    auto cross = rows(in, in);
    if (divisors) {
      cross = mx::divide(cross, mx::expand_dims(*divisors, 1));
    }
    sums.input_shift = mx::subtract(cross, sums.hessian);
    mx::eval(*sums.input_shift);
  }
  if (adds) {
    sums.output_shift = rows(2 * in, hidden);
    mx::eval(*sums.output_shift);
  }
  return sums;
}

}  // namespace pennyweight
