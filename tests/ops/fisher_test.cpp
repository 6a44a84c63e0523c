#include <cmath>
#include <vector>

#include "ops/head/tile_ops.h"
#include "ops/kl_head.h"
#include "ops_test.h"

namespace pennyweight::ops {

namespace {

constexpr int kVocab = 70;  // more than the 64 signs of one draw

/// The same logits in each row, and a head that gives v itself.
Head same_rows(int rows, const mx::array& logits, mx::Dtype type, float cap) {
  return whole_head(
      {mx::contiguous(
           mx::astype(mx::broadcast_to(logits, {rows, kVocab}), type)),
       mx::eye(kVocab, type),
       std::nullopt,
       cap});
}

class Fisher : public Ops {};

// Every entry of the draws' covariance, with the standard error that the draws
// themselves show. Of 2,485 entries the furthest of a normal distribution is
// at 3.7 of these; 6 leaves the fourth moments' own error.
TEST_P(Fisher, DrawsHaveTheLogitsCovariance) {
  const auto type = GetParam();
  const int rows = 4096;
  for (const float cap : {0.0f, 3.0f}) {
    const auto z = wide(random({kVocab}, type, 1, 2));
    const auto capped = cap_logits(z, cap);
    const auto p = mx::softmax(capped, -1, true);
    auto slope = mx::ones({kVocab});
    if (cap > 0) {
      const auto tanh = mx::tanh(mx::divide(z, mx::array(cap)));
      slope = mx::subtract(slope, mx::square(tanh));
    }
    const auto v = fisher_head(same_rows(rows, z, type, cap), 5, 0);
    const auto column = [](const mx::array& x) {
      return mx::expand_dims(x, 1);
    };
    const auto expected = mx::multiply(
        mx::subtract(mx::diag(p), mx::multiply(column(p), p)),
        mx::multiply(column(slope), slope));
    const auto products =
        mx::multiply(mx::expand_dims(v, 1), mx::expand_dims(v, 2));
    const auto found = mx::mean(products, 0);
    const auto error =
        mx::sqrt(mx::divide(mx::var(products, 0), mx::array(float(rows))));
    // A head in two bytes rounds the logits, and v.
    const auto margin = mx::add(
        mx::multiply(mx::array(6.0f), error),
        mx::array(float(8 * unit(type)) * mx::max(expected).item<float>()));
    EXPECT_TRUE(
        mx::all(mx::less_equal(mx::abs(mx::subtract(found, expected)), margin))
            .item<bool>());
    const auto off = mx::abs(mx::mean(v, 0));
    const auto mean_error =
        mx::sqrt(mx::divide(mx::var(v, 0), mx::array(float(rows))));
    EXPECT_TRUE(mx::all(mx::less_equal(
                            off,
                            mx::add(
                                mx::multiply(mx::array(6.0f), mean_error),
                                mx::array(float(unit(type))))))
                    .item<bool>());
  }
}

TEST_P(Fisher, RowsAreDrawnByTheirNumber) {
  const auto type = GetParam();
  const HeadRows rows{
      random({40, 32}, type, 1), random({700, 32}, type, 2, 0.3f)};
  const auto head = whole_head(rows);
  const auto all = fisher_head(head, 7, 100);
  const HeadRows last{mx::slice(rows.x, {30, 0}, {40, 32}), rows.weight};
  const auto end = mx::slice(all, {30, 0}, {40, 32});
  expect_close(fisher_head(whole_head(last), 7, 130), end, mx::float32, 1, 700);
  const auto other = fisher_head(head, 8, 100);
  EXPECT_FALSE(mx::allclose(other, all).item<bool>());
  EXPECT_TRUE(mx::array_equal(fisher_head(head, 7, 100), all).item<bool>());
}

// v of a tile does not depend on how the vocabulary was cut before.
TEST_P(Fisher, TilesMakeOneVocabulary) {
  const auto type = GetParam();
  const HeadRows head{
      random({40, 32}, type, 1), random({700, 32}, type, 2, 0.3f)};
  const auto part = [&](int first, int end) {
    return HeadRows{head.x, mx::slice(head.weight, {first, 0}, {end, 32})};
  };
  const auto whole = fisher_update(fisher_start(40), head, {7, 0, 0});
  auto state = fisher_update(fisher_start(40), part(0, 128), {7, 0, 0});
  state = fisher_update(state, part(128, 700), {7, 0, 128});
  const auto rounded = type == mx::float32 ? 1.0 : 2.0;
  expect_close(
      fisher_gradient(state, part(128, 700), {7, 0, 128}),
      mx::slice(fisher_gradient(whole, head, {7, 0, 0}), {0, 128}, {40, 700}),
      type,
      rounded,
      700);
}

// On a GPU the same draws are made by MLX's ops: nothing that a run decides by
// them may depend on the device.
TEST_P(Fisher, MlxDrawsTheSame) {
  const auto type = GetParam();
  const HeadRows head{
      random({40, 32}, type, 1), random({700, 32}, type, 2, 0.3f)};
  for (const FisherDraw& draw :
       {FisherDraw{7, 0, 0},
        FisherDraw{0xfedcba9876543210u, int64_t{5} << 32, 128}}) {
    const auto state = fisher_update(fisher_start(40), head, draw);
    expect_close(
        mlx_path::fisher_gradient(state, head, draw),
        wide(fisher_gradient(state, head, draw)),
        type,
        2,
        700);
  }
}

INSTANTIATE_OPS_TEST(Fisher);

}  // namespace

}  // namespace pennyweight::ops
