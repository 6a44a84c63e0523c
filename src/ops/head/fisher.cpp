#include <mlx/ops.h>

#include <limits>

#include "kernels/mixed_bits.h"
#include "ops/check.h"
#include "ops/head/head_inputs.h"
#include "ops/head/tile_ops.h"

namespace pennyweight::ops {

namespace {

mx::array wide_word(uint64_t value) {
  return mx::array(value, mx::uint64);
}

mx::array mixed_by_mlx(mx::array x) {
  const auto folded = [](const mx::array& word, uint64_t shift) {
    return mx::bitwise_xor(word, mx::right_shift(word, wide_word(shift)));
  };
  x = x + wide_word(kernels::kMixStep);
  x = folded(x, 30) * wide_word(kernels::kMixFactors[0]);
  x = folded(x, 27) * wide_word(kernels::kMixFactors[1]);
  return folded(x, 31);
}

/// The kernels' own signs [rows, columns], 1 or -1 (kernels/mixed_bits.h).
mx::array signs_by_mlx(const FisherDraw& draw, int rows, int columns) {
  constexpr int kBits = 64;
  const int words = (columns + kBits - 1) / kBits;
  const auto row = mx::reshape(mx::arange(rows, mx::uint64), {rows, 1}) +
      wide_word(uint64_t(draw.first_row));
  const auto key =
      mixed_by_mlx(mx::bitwise_xor(wide_word(draw.seed), mixed_by_mlx(row)));
  const auto at = mx::arange(words, mx::uint64) * wide_word(kBits) +
      wide_word(uint64_t(draw.first));
  // Bytes of a word, and bits of a byte, from the lowest on.
  const auto bytes = mx::view(mixed_by_mlx(key + at), mx::uint8);
  const auto bits = mx::bitwise_and(
      mx::right_shift(
          mx::expand_dims(bytes, 2), mx::arange(kBits / 8, mx::uint8)),
      mx::array(1, mx::uint8));
  return mx::where(
      mx::slice(
          mx::reshape(bits, {rows, words * kBits}), {0, 0}, {rows, columns}),
      mx::array(1.0f),
      mx::array(-1.0f));
}

/// A tile's logits, its softmax p over its own columns, `roots` = s sqrt(p)
/// with random signs s, and log(sum(exp(logits))) [rows, 1].
struct MlxDraw {
  mx::array logits, p, roots, log_sum;

  MlxDraw(const mx::array& of, const FisherDraw& draw)
      : logits(of),
        p(mx::softmax(logits, -1, true)),
        roots(p),
        log_sum(mx::logsumexp(logits, -1, true)) {
    roots = mx::sqrt(p) * signs_by_mlx(draw, p.shape(0), p.shape(1));
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
