#include <mlx/ops.h>
#include <mlx/random.h>

#include <limits>
#include <utility>

#include "ops/check.h"
#include "ops/head_side.h"
#include "ops/head_tile_ops.h"
#include "ops/mlx_path.h"

namespace pennyweight::ops {

namespace {

using Arrays = std::vector<mx::array>;

/// The state after a tile, or, once it has seen all, a tile of v.
class Fisher : public HeadPrimitive {
 public:
  Fisher(mx::Stream stream, SideParts head, const FisherDraw& draw, bool update)
      : HeadPrimitive(stream), parts_(head), draw_(draw), update_(update) {}

  const char* name() const override {
    return "pennyweight::Fisher";
  }

 protected:
  // Inputs are state, then the head.
  Task plan(const Arrays& inputs, mx::array& out) override {
    size_t next = 1;
    kernels::FisherTileArgs args{
        .rows = inputs[1].shape(0),
        .columns = inputs[2].shape(0),
        .first = draw_.first,
        .head = side_of(parts_, inputs, next),
        .seed = draw_.seed,
        .first_row = draw_.first_row};
    if (update_) {
      const auto place = go_on(inputs[0], out);
      args.state = out.data<float>();
      return [args, place] {
        place.copy();
        kernels::fisher_update(args);
      };
    }
    auto state = without_gaps(inputs[0]);
    allocate(out);
    args.state = state.data<float>();
    args.gradient = matrix_of(out);
    return [args] { kernels::fisher_gradient(args); };
  }

 private:
  SideParts parts_;
  FisherDraw draw_;
  bool update_;
};

/// s sqrt(p) of a tile by its own softmax, that, and its log-sum [rows, 1].
struct MlxDraw {
  mx::array logits, p, roots, log_sum;

  MlxDraw(const HeadRows& head, const FisherDraw& draw)
      : logits(mlx_path::head_logits(head)),
        p(mx::softmax(logits, -1, true)),
        roots(p),
        log_sum(mx::logsumexp(logits, -1, true)) {
    const auto key = mx::random::key(
        draw.seed + (uint64_t(draw.first_row) << 20) + uint64_t(draw.first));
    const auto signs = mx::where(
        mx::random::bernoulli(mx::array(0.5f), p.shape(), key),
        mx::array(1.0f),
        mx::array(-1.0f));
    roots = mx::multiply(mx::sqrt(p), signs);
  }
};

mx::array half_exp(const mx::array& x) {
  return mx::exp(mx::multiply(x, mx::array(0.5f)));
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
  const auto cpu = cpu_stream();
  if (!cpu) {
    const MlxDraw tile(head, draw);
    const auto before = state_column(state, kernels::kFisherLogSum);
    const auto after = mx::logaddexp(before, tile.log_sum);
    const auto dot = mx::add(
        mx::multiply(
            state_column(state, kernels::kFisherDot),
            half_exp(mx::subtract(before, after))),
        mx::multiply(
            mx::sum(tile.roots, -1, true),
            half_exp(mx::subtract(tile.log_sum, after))));
    return mx::concatenate({after, dot}, 1);
  }
  Arrays inputs{state};
  const auto parts = append_side(inputs, head);
  return mx::array(
      state.shape(),
      mx::float32,
      std::make_shared<Fisher>(*cpu, parts, draw, true),
      std::move(inputs));
}

mx::array fisher_gradient(
    const mx::array& state,
    const HeadRows& head,
    const FisherDraw& draw) {
  check_linear(head.x, head.weight, head.bias);
  const auto type = head.weight.dtype();
  const auto cpu = cpu_stream();
  if (!cpu) {
    const MlxDraw tile(head, draw);
    const auto away =
        mx::subtract(tile.log_sum, state_column(state, kernels::kFisherLogSum));
    const auto p = mx::multiply(tile.p, mx::exp(away));
    const auto v = mx::subtract(
        mx::multiply(tile.roots, half_exp(away)),
        mx::multiply(p, state_column(state, kernels::kFisherDot)));
    return mx::astype(uncapped_slopes(v, tile.logits, head.cap), type);
  }
  Arrays inputs{state};
  const auto parts = append_side(inputs, head);
  return mx::array(
      {head.x.shape(0), head.weight.shape(0)},
      type,
      std::make_shared<Fisher>(*cpu, parts, draw, false),
      std::move(inputs));
}

}  // namespace pennyweight::ops
