#include "ops/ops_test.h"

namespace pennyweight::ops {

namespace {

class OpsScores : public Ops {};

TEST_P(OpsScores, TileByTile) {
  const auto type = GetParam();
  const int rows = 37, vocabulary = 700;
  const auto x = random({rows, kDepth}, type, 1, 0.3f);
  const auto other = random({rows, kDepth}, type, 2, 0.02f);
  const auto weight = random({vocabulary, kDepth}, type, 3);
  const auto reference_x = mx::add(x, other);
  const auto targets = mx::astype(
      mx::remainder(
          mx::multiply(mx::arange(rows), mx::array(53)), mx::array(vocabulary)),
      mx::int32);
  const auto rows_of = [&](int from, int to) {
    return mx::slice(weight, {from, 0}, {to, kDepth});
  };
  auto state = score_start(rows);
  auto plain = score_start(rows);
  const int tiles[] = {0, 64, 65, 600, vocabulary};
  for (int i = 0; i + 1 < 5; ++i) {
    const auto part = rows_of(tiles[i], tiles[i + 1]);
    const HeadRows own{x, part};
    const HeadRows beside{reference_x, part};
    state = score_linear(state, own, beside, targets, tiles[i]);
    plain = mlx_path::score_linear(plain, own, beside, targets, tiles[i]);
  }
  const auto expected = mlx_path::score_finish(plain);
  const auto scores = score_finish(state);
  const auto near = [](const mx::array& a, const mx::array& b) {
    return mx::max(mx::abs(mx::subtract(a, b))).item<float>();
  };
  // MLX's side sums and subtracts in float32 at a size of about 10.
  EXPECT_LE(near(scores.nll, expected.nll), 1e-5);
  EXPECT_LE(near(scores.reference_nll, expected.reference_nll), 1e-5);
  EXPECT_LE(near(scores.kl, expected.kl), 1e-5);
  EXPECT_GT(mx::min(scores.kl).item<float>(), 0);
  EXPECT_TRUE(mx::array_equal(scores.agrees, expected.agrees).item<bool>());
  EXPECT_FALSE(
      mx::all(mx::equal(scores.nll, scores.reference_nll)).item<bool>());
  // A state that is still held is not written to.
  const auto again = score_start(rows);
  const HeadRows all{x, weight};
  const auto one = score_linear(again, all, std::nullopt, targets, 0);
  const auto two = score_linear(one, all, std::nullopt, targets, 0);
  mx::eval(one);
  const auto before = mx::contiguous(mx::copy(one));
  mx::eval(before);
  mx::eval(two);
  EXPECT_TRUE(mx::array_equal(one, before).item<bool>());
  const auto alone = score_finish(one);
  EXPECT_EQ(mx::max(mx::abs(alone.kl)).item<float>(), 0);
  EXPECT_TRUE(mx::all(alone.agrees).item<bool>());
}

INSTANTIATE_OPS_TEST(OpsScores);

}  // namespace

}  // namespace pennyweight::ops
