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
    int in) {
  InputStatistics sums{0, mx::zeros({in, in}), std::nullopt, std::nullopt};
  // sum of x_full x^T: the Hessian is taken from it at the end, since products
  // of what is in bfloat16 are exact and a difference would be rounded.
  std::optional<mx::array> cross;
  if (full) {
    cross = mx::zeros({in, in});
  }
  for (size_t i = 0; i < batches.size(); ++i) {
    auto x = stream.step_input(step, i);
    auto x_full = full ? full->step_input(step, i) : x;
    if (i >= fit_batches) {
      mx::eval(x, x_full);
      continue;
    }
    sums.tokens += batches[i].count;
    auto tokens = pick_tokens(batches[i], x);
    sums.hessian = ops::gram_add(sums.hessian, tokens, tokens);
    if (full) {
      cross = ops::gram_add(*cross, pick_tokens(batches[i], x_full), tokens);
    }
    if (full && adds_to_residual(step)) {
      auto r = stream.residual(step, i);
      if (!sums.output_shift) {
        sums.output_shift = mx::zeros({r.shape(-1), in});
      }
      auto lost = ops::difference(full->residual(step, i), r, tokens.dtype());
      sums.output_shift = ops::gram_add(
          *sums.output_shift, pick_tokens(batches[i], lost), tokens);
      mx::eval(*sums.output_shift);
    }
    mx::eval(sums.hessian);
    if (cross) {
      mx::eval(*cross);
    }
  }
  if (cross) {
    sums.input_shift = mx::subtract(*cross, sums.hessian);
    mx::eval(*sums.input_shift);
  }
  return sums;
}

}  // namespace pennyweight
