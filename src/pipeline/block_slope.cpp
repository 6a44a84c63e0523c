// The part of a block's task that training by its output needs.

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "model/gradients.h"
#include "pipeline/block_task.h"

namespace pennyweight {

namespace {

/// 1 / |y|^2 of each token, [rows, length, 1]; 0 of padding.
mx::array inverse_squares(const TokenBatch& batch, const mx::array& y) {
  auto inverse = mx::divide(
      mx::array(1.0f),
      mx::maximum(mx::sum(mx::square(y), -1, true), mx::array(1e-30f)));
  if (batch.picks) {
    const auto flat = mx::reshape(inverse, {-1});
    const auto picked = mx::take(flat, *batch.picks);
    inverse = mx::reshape(
        mx::scatter(
            mx::zeros_like(flat),
            *batch.picks,
            mx::reshape(picked, {picked.shape(0), 1}),
            0),
        inverse.shape());
  }
  mx::eval(inverse);
  return inverse;
}

}  // namespace

FitText WalkTask::fit_text() const {
  FitText text{{}, state_.ranks.size()};
  for (size_t i = 0; i < state_.fit_batches; ++i) {
    text.tokens.push_back(state_.batches[i].count);
  }
  return text;
}

BlockSlope WalkTask::slope(
    const DenseBlock& weights,
    const std::vector<std::string>& paths,
    const std::vector<size_t>& batches) {
  // Asks whether to go on, too.
  auto blocks = static_cast<int64_t>(state_.model.spec.blocks.size());
  report(state_.progress, {state_.stage, spec_.index, blocks, "blocks"});
  full_.complete();
  const BlockWeights block = with(weights);
  const ForwardContext context{.dtype = dtype()};
  double error = 0;
  double tokens = 0;
  DenseBlock sums;
  for (size_t i : batches) {
    const auto wanted = full_.stream().output(i);
    auto factor = inverse_squares(state_.batches[i], wanted);
    if (unit_ == 0) {
      unit_ = double{mx::sum(factor).item<float>()} /
          double(state_.batches[i].count);
    }
    factor = mx::multiply(factor, mx::array(static_cast<float>(1 / unit_)));
    auto slope = loss_gradients(
        spec_,
        block,
        paths,
        inputs().stream().start(i),
        [&](const mx::array& y) {
          return mx::sum(
              mx::multiply(factor, mx::square(mx::subtract(y, wanted))));
        },
        context);
    std::vector<mx::array> made{slope.loss};
    for (const auto& path : paths) {
      auto sum = sums.extract(path);
      auto gradient = slope.weights.extract(path);
      made.push_back(
          sum ? ops::accumulate(sum.mapped(), gradient.mapped())
              : gradient.mapped());
    }
    mx::eval(made);
    for (size_t k = 0; k < paths.size(); ++k) {
      sums.emplace(paths[k], made[k + 1]);
    }
    error += double{slope.loss.item<float>()} * unit_;
    tokens += double(state_.batches[i].count);
  }
  return summed(paths, error, tokens, std::move(sums));
}

// Over all ranks, of which some may have no batches.
BlockSlope WalkTask::summed(
    const std::vector<std::string>& paths,
    double error,
    double tokens,
    DenseBlock sums) const {
  const Ranks& ranks = state_.ranks;
  const double all = ranks.sum(tokens);
  const bool alone = ranks.size() == 1;
  // Each rank has a unit of its own.
  BlockSlope slope{ranks.sum(error) / all, (alone ? unit_ : 1) / all, {}};
  for (const auto& path : paths) {
    auto sum = sums.extract(path);
    auto own = sum
        ? sum.mapped()
        : mx::zeros(source_.linears.at(path).dense->shape(), mx::float32);
    if (!alone) {
      own = ranks.sum(mx::multiply(own, mx::array(static_cast<float>(unit_))));
    }
    slope.gradients.emplace(path, own);
  }
  return slope;
}

}  // namespace pennyweight
