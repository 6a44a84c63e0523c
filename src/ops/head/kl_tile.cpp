#include <mlx/ops.h>

#include "kernels/access.h"
#include "kernels/score_state.h"
#include "ops/check.h"
#include "ops/head/head_inputs.h"
#include "ops/head/tile_ops.h"

namespace pennyweight::ops {

mx::array gradient_before_cap(
    const mx::array& gradient,
    const mx::array& logits,
    float cap) {
  if (cap <= 0) {
    return gradient;
  }
  const auto part = logits / mx::array(cap);
  return gradient * (mx::array(1.0f) - mx::square(part));
}

namespace {

/// exp(logits over the temperature) over their sum: the softmax by the side's
/// maximum and sum in `state`.
mx::array
chance(const mx::array& logits, const mx::array& state, int side, float scale) {
  const auto sum =
      state_column(state, side + 1) + state_column(state, side + 2);
  const auto scaled = logits * mx::array(scale);
  return mx::exp(scaled - state_column(state, side)) / sum;
}

}  // namespace

mx::array kl_gradient(
    const mx::array& state,
    const HeadRows& head,
    const HeadRows& reference,
    const KlOptions& options) {
  check_score_linear(
      state, head, reference, mx::zeros({head.x.shape(0)}, mx::int32), 0);
  Arrays inputs{state};
  const HeadInputs own(inputs, head);
  const HeadInputs other(inputs, reference);
  const auto type = head.weight.dtype();
  return make({
      .name = "kl_gradient",
      .shape = {head.x.shape(0), head.weight.shape(0)},
      .dtype = type,
      .inputs = std::move(inputs),
      .fallback =
          [=, cap = head.cap](const Arrays& in) {
            const float scale = 1 / options.temperature;
            const auto logits = own.logits(in);
            const auto difference =
                chance(logits, in[0], kernels::kScoreMax, scale) -
                chance(other.logits(in), in[0], kernels::kScoreRefMax, scale);
            const auto capped =
                difference * mx::array(options.factor / options.temperature);
            return mx::astype(gradient_before_cap(capped, logits, cap), type);
          },
      .cpu = [=](CpuWork& work) -> Task {
        const kernels::KlTileArgs args{
            .rows = work.out_size(0),
            .columns = work.out_size(1),
            .head = own.side(work),
            .reference = other.side(work),
            .temperature = options.temperature,
            .factor = options.factor,
            .state = work.data<float>(0),
            .state_stride = kScoreState,
            .gradient = work.result()};
        return [args] { kernels::kl_tile(args); };
      },
  });
}

mx::array add_transposed(
    const mx::array& sum,
    const mx::array& gradient,
    const mx::array& weight) {
  return make({
      .name = "add_transposed",
      .shape = sum.shape(),
      .dtype = mx::float32,
      .inputs = {sum, gradient, weight},
      .fallback =
          [](const Arrays& in) {
            return in[0] + mx::matmul(as_float32(in[1]), as_float32(in[2]));
          },
      .cpu = [](CpuWork& work) -> Task {
        kernels::MatmulArgs args{
            .m = work.rows(1),
            .n = work.size(2, 1),
            .k = work.size(2, 0),
            .x = work.matrix(1),
            .weight = work.matrix(2),
            .out = work.result_from(0),
            .weight_by_depth = true};
        args.residual = kernels::as_const(args.out);
        return [args] { kernels::matmul(args); };
      },
  });
}

}  // namespace pennyweight::ops
