#include "ops/kl_head.h"

#include <variant>
#include <vector>

#include "ops/head/tile_ops.h"
#include "ops/ops_test.h"

namespace pennyweight::ops {

namespace {

struct Expected {
  mx::array loss, dx, dweight;
};

/// MLX's own gradients, in float32.
Expected by_mlx(
    const HeadRows& head,
    const std::variant<HeadRows, TopLogits>& reference,
    const KlOptions& options) {
  const mx::array temperature(options.temperature);
  const auto log_softmax = [&](const mx::array& x) {
    const auto z = mx::divide(wide(x), temperature);
    return mx::subtract(z, mx::logsumexp(z, -1, true));
  };
  const auto* top = std::get_if<TopLogits>(&reference);
  const auto target = log_softmax(
      top ? top->values : mlx_path::head_logits(std::get<HeadRows>(reference)));
  const auto losses = [&](const Arrays& inputs) {
    auto logits =
        mlx_path::head_logits({inputs[0], inputs[1], head.bias, head.cap});
    if (top) {
      logits = mx::take_along_axis(logits, top->columns, -1);
    }
    const auto own = log_softmax(logits);
    return Arrays{
        mx::sum(mx::multiply(mx::exp(target), mx::subtract(target, own)), -1)};
  };
  const auto [loss, gradients] = mx::vjp(
      losses,
      {wide(head.x), wide(head.weight)},
      {mx::full({head.x.shape(0)}, options.factor)});
  return {loss[0], gradients[0], gradients[1]};
}

class KlHeads : public Ops {};

/// The first vocabulary is one tile, the second three, whose last is odd.
TEST_P(KlHeads, AreMlxAutodiffs) {
  const auto type = GetParam();
  for (const int vocab : {700, 33001}) {
    for (const float cap : {0.0f, 5.0f}) {
      const HeadRows head{
          random({50, 64}, type, 1),
          random({vocab, 64}, type, 2, 0.3f),
          random({vocab}, type, 5, 0.3f),
          cap};
      const HeadRows other{
          random({50, 32}, type, 3),
          random({vocab, 32}, type, 4, 0.4f),
          std::nullopt,
          cap};
      const auto top = top_logits(whole_head(other), 100, mx::float32);
      // Slopes of one size, that float16 holds as normal numbers.
      const KlOptions options{.temperature = 2, .factor = float(vocab) / 2800};
      for (const bool by_top : {false, true}) {
        const auto expected =
            by_top ? by_mlx(head, top, options) : by_mlx(head, other, options);
        const std::variant<Head, TopLogits> reference = by_top
            ? std::variant<Head, TopLogits>(top)
            : std::variant<Head, TopLogits>(whole_head(other));
        Arrays tiles;
        const auto actual = kl_head(
            whole_head(head),
            reference,
            options,
            [&](int, int, const mx::array& part) { tiles.push_back(part); });
        EXPECT_EQ(tiles.size(), vocab > 700 ? 3u : 1u);
        // The gradient by logits is rounded before it is multiplied.
        const double roundings =
            type == mx::float32 ? 8 : 4 * unit(type) * 0x1p24;
        const auto near =
            [&](const mx::array& a, const mx::array& b, double n) {
              expect_close(a, b, mx::float32, n, 700);
            };
        near(actual.loss, expected.loss, 8);
        near(kl_loss(whole_head(head), reference, options), expected.loss, 8);
        near(actual.dx, expected.dx, roundings);
        near(mx::concatenate(tiles, 0), expected.dweight, roundings);
      }
    }
  }
}

// What a GPU runs.
TEST_P(KlHeads, GradientsAreMlxs) {
  const auto type = GetParam();
  const HeadRows head{
      random({50, 64}, type, 1), random({700, 64}, type, 2, 0.3f), {}, 5};
  const HeadRows other{
      random({50, 32}, type, 3), random({700, 32}, type, 4, 0.4f), {}, 5};
  const KlOptions options{.temperature = 2, .factor = 0.25f};
  const auto state = score_linear(
      score_start(50), head, other, mx::zeros({50}, mx::int32), 0, 0.5f);
  expect_close(
      kl_gradient(state, head, other, options),
      mlx_path::kl_gradient(state, head, other, options),
      type,
      type == mx::float32 ? 16 : 2,
      64);
}

INSTANTIATE_OPS_TEST(KlHeads);

TEST(TopLogitsOfAHead, AreTheLargest) {
  mx::set_default_device(mx::Device::cpu);
  const HeadRows head{
      random({9, 32}, mx::float32, 1), random({500, 32}, mx::float32, 2)};
  const auto top = top_logits(whole_head(head), 20, mx::float32);
  const auto logits = mx::matmul(head.x, mx::transpose(head.weight));
  const auto largest = mx::sort(mx::topk(logits, 20, -1), -1);
  expect_close(mx::sort(top.values, -1), largest, mx::float32, 2, 32);
  expect_close(
      top.values,
      mx::take_along_axis(logits, top.columns, -1),
      mx::float32,
      2,
      32);
}

}  // namespace

}  // namespace pennyweight::ops
