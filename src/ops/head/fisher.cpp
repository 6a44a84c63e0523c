#include <mlx/ops.h>
#include <mlx/random.h>

#include <limits>

#include "ops/check.h"
#include "ops/head/head_inputs.h"
#include "ops/head/tile_ops.h"

namespace pennyweight::ops {

namespace {

/// A tile's logits, its softmax p over its own columns, `roots` = s sqrt(p)
/// with random signs s, and log(sum(exp(logits))) [rows, 1].
struct MlxDraw {
  mx::array logits, p, roots, log_sum;

  MlxDraw(const mx::array& of, const FisherDraw& draw)
      : logits(of),
        p(mx::softmax(logits, -1, true)),
        roots(p),
        log_sum(mx::logsumexp(logits, -1, true)) {
    const auto key = mx::random::key(
        draw.seed + (uint64_t(draw.first_row) << 20) + uint64_t(draw.first));
    const auto signs = mx::where(
        mx::random::bernoulli(mx::array(0.5f), p.shape(), key),
        mx::array(1.0f),
        mx::array(-1.0f));
    roots = mx::sqrt(p) * signs;
  }
};

mx::array half_exp(const mx::array& x) {
  return mx::exp(x * mx::array(0.5f));
}

mx::array update_by_mlx(const mx::array& state, const MlxDraw& tile) {
  const auto before = state_column(state, kernels::kFisherLogSum);
  const auto after = mx::logaddexp(before, tile.log_sum);
  const auto dot =
      state_column(state, kernels::kFisherDot) * half_exp(before - after) +
      mx::sum(tile.roots, -1, true) * half_exp(tile.log_sum - after);
  return mx::concatenate({after, dot}, 1);
}

mx::array
gradient_by_mlx(const mx::array& state, const MlxDraw& tile, float cap) {
  const auto away = tile.log_sum - state_column(state, kernels::kFisherLogSum);
  const auto p = tile.p * mx::exp(away);
  const auto v = tile.roots * half_exp(away) -
      p * state_column(state, kernels::kFisherDot);
  return gradient_before_cap(v, tile.logits, cap);
}

/// The kernels' arguments but for state and gradient; inputs are the state and
/// the head.
kernels::FisherTileArgs
arguments(CpuWork& work, const HeadInputs& head, const FisherDraw& draw) {
  return {
      .rows = work.size(1, 0),
      .columns = work.size(2, 0),
      .first = draw.first,
      .head = head.side(work),
      .seed = draw.seed,
      .first_row = draw.first_row};
}

}  // namespace

mx::array fisher_start(int rows) {
  return mx::concatenate(
      {mx::full({rows, 1}, -std::numeric_limits<float>::infinity()),
       mx::zeros({rows, 1})},
      1);
}

mx::array fisher_update(
    const mx::array& state,
    const HeadRows& head,
    const FisherDraw& draw) {
  check_linear(head.x, head.weight, head.bias);
  Arrays inputs{state};
  const HeadInputs own(inputs, head);
  return make({
      .name = "fisher_update",
      .shape = state.shape(),
      .dtype = mx::float32,
      .inputs = std::move(inputs),
      .fallback =
          [=](const Arrays& in) {
            return update_by_mlx(in[0], MlxDraw(own.logits(in), draw));
          },
      .cpu = [=](CpuWork& work) -> Task {
        auto args = arguments(work, own, draw);
        args.state = static_cast<float*>(work.result_from(0).data);
        return [args] { kernels::fisher_update(args); };
      },
  });
}

mx::array fisher_gradient(
    const mx::array& state,
    const HeadRows& head,
    const FisherDraw& draw) {
  check_linear(head.x, head.weight, head.bias);
  Arrays inputs{state};
  const HeadInputs own(inputs, head);
  const auto type = head.weight.dtype();
  return make({
      .name = "fisher_gradient",
      .shape = {head.x.shape(0), head.weight.shape(0)},
      .dtype = type,
      .inputs = std::move(inputs),
      .fallback =
          [=, cap = head.cap](const Arrays& in) {
            const MlxDraw tile(own.logits(in), draw);
            return mx::astype(gradient_by_mlx(in[0], tile, cap), type);
          },
      .cpu = [=](CpuWork& work) -> Task {
        auto args = arguments(work, own, draw);
        args.state = const_cast<float*>(work.data<float>(0));  // only read
        args.gradient = work.result();
        return [args] { kernels::fisher_gradient(args); };
      },
  });
}

}  // namespace pennyweight::ops
