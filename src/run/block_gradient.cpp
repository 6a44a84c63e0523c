// The part of a block's task that training by its output needs.

#include <mlx/ops.h>
#include <mlx/random.h>
#include <mlx/transforms.h>

#include "model/gradients.h"
#include "model/stream/columns.h"
#include "pass/floats.h"
#include "run/block_task.h"

namespace pennyweight {

namespace {

/// 1 / |y|^2 of each token, [rows, length, 1]; 0 of padding.
mx::array inverse_squares(const TokenBatch& batch, const mx::array& y) {
  auto inverse = mx::array(1.0f) /
      mx::maximum(mx::sum(mx::square(y), -1, true), mx::array(1e-30f));
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

BlockGradient WalkTask::gradient(
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
    const auto wanted = residual_of(spec_, full_.stream().output(i));
    auto factor = inverse_squares(state_.batches[i], wanted);
    if (unit_ == 0) {
      unit_ = double{mx::sum(factor).item<float>()} /
          double(state_.batches[i].count);
    }
    factor = factor * mx::array(static_cast<float>(1 / unit_));
    auto found = loss_gradients(
        spec_,
        block,
        paths,
        inputs().stream().start(i),
        [&](const mx::array& y) {
          return mx::sum(factor * mx::square(residual_of(spec_, y) - wanted));
        },
        context);
    std::vector<mx::array> made{found.loss};
    for (const auto& path : paths) {
      auto sum = sums.extract(path);
      auto gradient = found.weights.extract(path);
      made.push_back(
          sum ? ops::accumulate(sum.mapped(), gradient.mapped())
              : gradient.mapped());
    }
    mx::eval(made);
    for (size_t k = 0; k < paths.size(); ++k) {
      sums.emplace(paths[k], made[k + 1]);
    }
    error += double{found.loss.item<float>()} * unit_;
    tokens += double(state_.batches[i].count);
  }
  return summed(paths, error, tokens, std::move(sums));
}

// Over all ranks, of which some may have no batches.
BlockGradient WalkTask::summed(
    const std::vector<std::string>& paths,
    double error,
    double tokens,
    DenseBlock sums) const {
  const ProcessGroup& ranks = state_.ranks;
  const double all = ranks.sum(tokens);
  const bool alone = ranks.size() == 1;
  // Each rank has a unit of its own.
  BlockGradient found{ranks.sum(error) / all, (alone ? unit_ : 1) / all, {}};
  for (const auto& path : paths) {
    auto sum = sums.extract(path);
    auto own = sum
        ? sum.mapped()
        : mx::zeros(source_.linears.at(path).dense->shape(), mx::float32);
    if (!alone) {
      own = ranks.sum(own * mx::array(static_cast<float>(unit_)));
    }
    found.gradients.emplace(path, own);
  }
  return found;
}

// With J the output's derivative by a weight, dJ^2 / |y_full|^2 summed over
// tokens and outputs is the mean, over random signs z, of the square of z / |y|
// taken back to the weight.
std::map<std::string, Curvature> WalkTask::curvature(
    const DenseBlock& weights,
    const std::vector<std::string>& paths,
    const std::vector<size_t>& batches,
    uint64_t seed) {
  full_.complete();
  const BlockWeights block = with(weights);
  const ForwardContext context{.dtype = dtype()};
  std::map<std::string, std::pair<mx::array, mx::array>> sums;
  double tokens = 0;
  for (const auto& path : paths) {
    const auto shape = source_.linears.at(path).dense->shape();
    sums.emplace(
        path,
        std::pair(
            mx::zeros({shape[0]}, mx::float32),
            mx::zeros({shape[1]}, mx::float32)));
  }
  for (size_t i : batches) {
    const auto wanted = residual_of(spec_, full_.stream().output(i));
    auto size = mx::sqrt(inverse_squares(state_.batches[i], wanted));
    const auto unit = mx::max(size);
    const auto signs =
        mx::random::bernoulli(0.5, wanted.shape(), mx::random::key(seed + i));
    auto dy =
        mx::where(signs, mx::array(1.0f), mx::array(-1.0f)) * (size / unit);
    if (const int beside = given_columns(spec_) - dy.shape(-1); beside > 0) {
      dy = mx::pad(dy, {{0, 0}, {0, 0}, {0, beside}});
    }
    auto found = block_gradients(
        spec_, block, paths, inputs().stream().start(i), dy, context);
    const auto square = mx::square(unit);
    std::vector<mx::array> made;
    for (auto& [path, sum] : sums) {
      const auto own = mx::square(found.weights.at(path));
      found.weights.erase(path);
      sum.first = sum.first + mx::sum(own, 1) * square;
      sum.second = sum.second + mx::sum(own, 0) * square;
      made.insert(made.end(), {sum.first, sum.second});
    }
    mx::eval(made);
    tokens += double(state_.batches[i].count);
  }
  const double all = state_.ranks.sum(tokens);
  std::map<std::string, Curvature> result;
  for (const auto& [path, sum] : sums) {
    auto rows = to_vector(state_.ranks.sum(sum.first));
    auto columns = to_vector(state_.ranks.sum(sum.second));
    double total = 0;
    for (float row : rows) {
      total += double{row};
    }
    // rows x columns / total is the estimate; the loss is a mean.
    for (float& row : rows) {
      row = static_cast<float>(total > 0 ? 2 * row / total / all : 0);
    }
    result.emplace(path, Curvature{std::move(rows), std::move(columns)});
  }
  return result;
}

}  // namespace pennyweight
