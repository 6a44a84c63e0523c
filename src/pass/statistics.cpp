#include "pass/statistics.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

namespace pennyweight {

StatisticsSum::StatisticsSum(int in, int shifted, int hidden, bool magnitudes)
    : in_(in),
      shifted_(shifted),
      hidden_(hidden),
      magnitudes_(magnitudes),
      sum_(mx::zeros({in + shifted + hidden, in})),
      sizes_(mx::zeros({in})) {}

void StatisticsSum::add(const std::vector<mx::array>& parts) {
  const auto& x = parts.front();
  tokens_ += x.shape(0);
  sum_ = ops::gram_add(sum_, parts, x);
  if (magnitudes_) {
    sizes_ = ops::magnitudes_add(sizes_, x);
  }
  mx::eval(sum_, sizes_);
}

InputStatistics StatisticsSum::finish(
    const std::optional<mx::array>& divisors) const {
  const auto rows = [&](int first, int count) {
    return mx::slice(sum_, {first, 0}, {first + count, in_});
  };
  InputStatistics sums{
      tokens_,
      mx::contiguous(rows(0, in_)),
      std::nullopt,
      std::nullopt,
      std::nullopt};
  if (magnitudes_) {
    sums.magnitudes = sizes_;
  }
  mx::eval(sums.hessian);
  // Of views, since each copy of a wide input's sums is large.
  if (shifted_ > 0) {
    auto cross = rows(in_, in_);
    if (divisors) {
      cross = cross / mx::expand_dims(*divisors, 1);
    }
    sums.input_shift = cross - rows(0, in_);
    mx::eval(*sums.input_shift);
  }
  if (hidden_ > 0) {
    sums.output_shift = mx::contiguous(rows(2 * in_, hidden_));
    mx::eval(*sums.output_shift);
  }
  return sums;
}

mx::array limit_rows(const mx::array& lost) {
  constexpr float kMost = 4;
  const auto norms =
      mx::sqrt(mx::sum(mx::square(mx::astype(lost, mx::float32)), -1, true));
  const auto most = mx::median(norms, 0) * mx::array(kMost);
  const auto factor = mx::minimum(
      mx::array(1.0f), most / mx::maximum(norms, mx::array(1e-30f)));
  return lost * mx::astype(factor, lost.dtype());
}

namespace {

bool adds(const BlockSpec& spec, const ModuleSpec& module, bool shifts) {
  return shifts && adds_to_residual(spec, module.input);
}

}  // namespace

StatisticsSum start_statistics(
    const BlockSpec& spec,
    const ModuleSpec& module,
    bool shifts,
    bool magnitudes) {
  const int in = static_cast<int>(module.in);
  const int hidden =
      adds(spec, module, shifts) ? static_cast<int>(module.out) : 0;
  return StatisticsSum(in, shifts ? in : 0, hidden, magnitudes);
}

// Products with x of x, of x_full and of r_full - r, in one pass over x. The
// second is made a difference at the end, since products of what is in
// bfloat16 are exact and a difference would be rounded.
void add_statistics(
    const BlockStream& stream,
    const BlockStream* full,
    const TokenBatch& batch,
    size_t index,
    const ModuleSpec& module,
    StatisticsSum& sum) {
  std::vector<mx::array> parts{pick_tokens(batch, stream.input(module, index))};
  if (full) {
    parts.push_back(pick_tokens(batch, full->input(module, index)));
  }
  if (adds(stream.spec(), module, full != nullptr)) {
    auto lost = ops::difference(
        full->residual(module.input, index),
        stream.residual(module.input, index),
        parts.front().dtype());
    parts.push_back(limit_rows(pick_tokens(batch, lost)));
  }
  sum.add(parts);
}

InputStatistics collect_statistics(
    const BlockStream& stream,
    const BlockStream* full,
    const std::vector<TokenBatch>& batches,
    const StatisticsRequest& request,
    const std::function<void(size_t batch)>& arrive) {
  const auto& module = request.module;
  auto sum = start_statistics(
      stream.spec(), module, full != nullptr, request.magnitudes);
  for (size_t i = 0; i < batches.size(); ++i) {
    arrive(i);
    if (i < request.fit_batches) {
      add_statistics(stream, full, batches[i], i, module, sum);
    }
  }
  return sum.finish(request.divisors);
}

}  // namespace pennyweight
