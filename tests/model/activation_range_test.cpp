#include "model/activation_range.h"

#include <gtest/gtest.h>
#include <mlx/random.h>
#include <mlx/transforms.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "model/decoder.h"
#include "support/tiny_model.h"

namespace pennyweight {
namespace {

using testing::tiny_config;
using testing::TinyModel;

const ActivationPeak& at(
    const std::vector<ActivationPeak>& peaks,
    const std::string& place) {
  auto it = std::ranges::find(peaks, place, &ActivationPeak::place);
  if (it == peaks.end()) {
    throw std::out_of_range(place);
  }
  return *it;
}

float largest_value(const mx::array& x) {
  return mx::max(mx::abs(x)).item<float>();
}

TEST(ActivationRange, GivesTheLargestInOrder) {
  ActivationRange range;
  const auto x = mx::array({1.0f, -7.5f, 3.0f});
  range.see("one", x);
  range.see("two", mx::astype(mx::array({1e5f, 0.0f}), mx::float16));
  range.see("three", mx::array({std::nanf(""), 1.0f}));
  const auto peaks = range.take(x);
  ASSERT_EQ(peaks.size(), 3);
  EXPECT_EQ(peaks[0].place, "one");
  EXPECT_EQ(peaks[0].largest, 7.5f);
  EXPECT_FALSE(peaks[0].overflows());
  EXPECT_TRUE(std::isinf(peaks[1].largest));
  EXPECT_TRUE(peaks[1].overflows());
  EXPECT_TRUE(peaks[2].overflows());
  EXPECT_TRUE(range.take(x).empty());
}

// What rounds to the largest_value float16 does not overflow.
TEST(ActivationRange, EndsWhereFloat16Does) {
  for (float value : {65504.0f, 65519.0f, 65520.0f, 70000.0f}) {
    const auto half = mx::astype(mx::array(value), mx::float16);
    const bool infinite =
        std::isinf(mx::astype(half, mx::float32).item<float>());
    EXPECT_EQ((ActivationPeak{"x", value}).overflows(), infinite) << value;
  }
}

TEST(ActivationRange, SeesEveryPlaceOfABlock) {
  const TinyModel tiny(tiny_config());
  const auto& spec = tiny.model.spec.blocks[0];
  auto weights = load_block(tiny.model, 0, mx::float32);
  const auto x =
      mx::random::normal({2, 5, 32}, mx::float32, mx::random::key(3));
  const auto expected = run_block(spec, weights, x, {});
  ActivationRange range;
  watch_range(spec, weights, range);
  const auto y = run_block(spec, weights, x, {});
  const auto peaks = range.take(y);
  EXPECT_LT(largest_value(mx::subtract(y, expected)), 1e-5f);
  std::vector<std::string> places;
  for (const auto& peak : peaks) {
    places.push_back(peak.place);
  }
  const std::string path = "model.layers.0.";
  const auto of = [&](const std::string& what, const std::string& module) {
    return what + " " + path + module;
  };
  EXPECT_EQ(
      places,
      (std::vector<std::string>{
          of("the output of", "input_layernorm"),
          of("the output of", "self_attn.q_proj"),
          of("the output of", "self_attn.k_proj"),
          of("the output of", "self_attn.v_proj"),
          of("the output of", "self_attn.o_proj"),
          of("the residual stream after", "self_attn.o_proj"),
          of("the output of", "post_attention_layernorm"),
          of("the output of", "mlp.gate_proj"),
          of("the output of", "mlp.up_proj"),
          of("the input of", "mlp.down_proj"),
          of("the output of", "mlp.down_proj"),
          of("the residual stream after", "mlp.down_proj")}));
  EXPECT_EQ(
      at(peaks, of("the residual stream after", "mlp.down_proj")).largest,
      largest_value(y));
  const auto input = attention_input(spec, weights, x, {});
  EXPECT_EQ(
      at(peaks, of("the output of", "input_layernorm")).largest,
      largest_value(input));
}

TEST(ActivationRange, ClipsWhereMlxLmDoes) {
  const TinyModel tiny(tiny_config());
  auto spec = tiny.model.spec.blocks[0];
  auto weights = load_block(tiny.model, 0, mx::float32);
  const auto x = mx::full({1, 3, 32}, 90000.0f, mx::float32);
  ActivationRange range;
  watch_range(spec, weights, range);
  const auto past = range.take(run_block(spec, weights, x, {}));
  EXPECT_TRUE(past.back().overflows());
  spec.clips_residual = true;
  const auto y = run_block(spec, weights, x, {});
  const auto peaks = range.take(y);
  EXPECT_FALSE(peaks.back().overflows());
  EXPECT_EQ(largest_value(y), kLargestFloat16);
}

// The largest_value of the scores that a mask leaves, one by one.
float direct_score(
    const mx::array& q,
    const mx::array& k,
    const AttentionSpec& spec) {
  float most = 0;
  const int length = q.shape(1), keys = k.shape(1), heads = q.shape(2);
  const int kv = k.shape(2), size = q.shape(3);
  for (int b = 0; b < q.shape(0); ++b) {
    for (int h = 0; h < heads; ++h) {
      for (int i = 0; i < length; ++i) {
        for (int j = 0; j <= i + keys - length; ++j) {
          if (spec.window > 0 && i + keys - length - j >= spec.window) {
            continue;
          }
          double sum = 0;
          const float* a =
              q.data<float>() + ((b * length + i) * heads + h) * size;
          const float* c =
              k.data<float>() + ((b * keys + j) * kv + h / (heads / kv)) * size;
          for (int d = 0; d < size; ++d) {
            sum += double(a[d]) * c[d];
          }
          most = std::max(most, static_cast<float>(sum * spec.scale));
        }
      }
    }
  }
  return most;
}

TEST(ActivationRange, ScoresAreThoseThatTheMaskLeaves) {
  AttentionSpec spec;
  spec.scale = 0.5f;
  spec.o.path = "o";
  auto q = mx::multiply(
      mx::random::normal({2, 4, 6, 8}, mx::float32, mx::random::key(1)),
      mx::array(300.0f));
  auto k = mx::multiply(
      mx::random::normal({2, 7, 3, 8}, mx::float32, mx::random::key(2)),
      mx::array(300.0f));
  mx::eval(q, k);
  for (int window : {0, 1, 2, 5}) {
    spec.window = window;
    BlockWeights weights;
    ActivationRange range;
    weights.range = &range;
    see_scores(spec, weights, q, k);
    const auto peaks = range.take(q);
    ASSERT_EQ(peaks.size(), 1) << window;
    const float expected = direct_score(q, k, spec);
    EXPECT_NEAR(peaks[0].largest / expected, 1, 1e-5) << window;
  }
  // Far from the range they are not made at all.
  BlockWeights weights;
  ActivationRange range;
  weights.range = &range;
  see_scores(spec, weights, mx::divide(q, mx::array(100.0f)), k);
  EXPECT_TRUE(range.take(q).empty());
}

}  // namespace
}  // namespace pennyweight
