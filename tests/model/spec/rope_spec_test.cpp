#include "model/spec/rope_spec.h"

#include <gtest/gtest.h>
#include <mlx/ops.h>

#include <cmath>

#include "core/json.h"
#include "support/expect_error.h"

namespace pennyweight {
namespace {

using testing::expect_error;

RopeSpec read_rope(const Json& scaling, std::optional<int> positions = 64) {
  RopeSpec rope;
  rope.dims = 8;
  rope.base = 10000;
  std::vector<std::string> notes;
  read_rope_scaling(JsonView(scaling, "rope_scaling"), positions, rope, notes);
  return rope;
}

std::vector<float> table(const RopeSpec& rope, int positions = 10) {
  auto frequencies = make_rope_table(rope, positions).frequencies;
  frequencies.eval();
  EXPECT_EQ(frequencies.dtype(), mx::float32);
  const float* data = frequencies.data<float>();
  return {data, data + frequencies.size()};
}

double plain(int i, double base = 10000) {
  return std::pow(base, -2.0 * i / 8);
}

// exp of a float32 argument up to 7: some units in the last place.
constexpr double kRelative = 2e-6;

TEST(RopeSpec, PlainAndLinear) {
  auto none = table(read_rope({{"rope_type", "default"}}));
  auto linear = table(read_rope({{"type", "linear"}, {"factor", 4.0}}));
  ASSERT_EQ(none.size(), 4u);
  for (int i = 0; i < 4; ++i) {
    EXPECT_NEAR(none[i], plain(i), kRelative * plain(i));
    EXPECT_FLOAT_EQ(linear[i], none[i] / 4);
  }
}

TEST(RopeSpec, DynamicGrowsPastTheTrainedLength) {
  auto rope = read_rope({{"type", "dynamic"}, {"factor", 2.0}});
  auto plain_table = table(read_rope({{"rope_type", "default"}}));
  EXPECT_EQ(table(rope, 64), plain_table);
  // base * (2 * 128 / 64 - 1)^(8 / 6)
  double base = 10000 * std::pow(3.0, 8.0 / 6);
  auto grown = table(rope, 128);
  for (int i = 0; i < 4; ++i) {
    EXPECT_NEAR(grown[i], plain(i, base), kRelative * plain(i, base));
  }
}

TEST(RopeSpec, Llama3KeepsShortAndStretchesLongWaves) {
  auto rope = read_rope(
      {{"rope_type", "llama3"},
       {"factor", 8.0},
       {"original_max_position_embeddings", 64}});
  auto scaled = table(rope);
  // Wavelengths 6.3, 62.8, 628, 6283 against 16 and 64.
  EXPECT_NEAR(scaled[0], 1, kRelative);
  double smooth = (64 / (2 * M_PI * 10) - 1) / 3;
  double medium = 0.1 * ((1 - smooth) / 8 + smooth);
  EXPECT_NEAR(scaled[1], medium, 10 * kRelative * medium);
  EXPECT_NEAR(scaled[2], plain(2) / 8, kRelative * plain(2));
  EXPECT_NEAR(scaled[3], plain(3) / 8, kRelative * plain(3));
}

TEST(RopeSpec, YarnScalesItsInput) {
  auto rope = read_rope({{"rope_type", "yarn"}, {"factor", 4.0}});
  auto made = make_rope_table(rope, 10);
  EXPECT_FLOAT_EQ(made.input_scale, 0.1 * std::log(4.0) + 1);
  auto scaled = table(rope);
  EXPECT_NEAR(scaled[0], 1, kRelative);
  EXPECT_NEAR(scaled[3], plain(3) / 4, kRelative * plain(3));
}

TEST(RopeSpec, LongropeUsesLongFactors) {
  auto rope = read_rope(
      {{"type", "longrope"},
       {"original_max_position_embeddings", 16},
       {"short_factor", {1, 1, 1, 1}},
       {"long_factor", {1.0, 2.0, 3.0, 4.0}}});
  auto made = make_rope_table(rope, 10);
  EXPECT_FLOAT_EQ(
      made.input_scale, std::sqrt(1 + std::log(4.0) / std::log(16.0)));
  auto scaled = table(rope);
  for (int i = 0; i < 4; ++i) {
    EXPECT_NEAR(scaled[i], plain(i) / (i + 1), kRelative * plain(i));
  }
}

TEST(RopeSpec, ProportionalLeavesTheRest) {
  auto scaled = table(read_rope(
      {{"rope_type", "proportional"}, {"partial_rotary_factor", 0.5}}));
  ASSERT_EQ(scaled.size(), 4u);
  EXPECT_NEAR(scaled[1], plain(1), kRelative * plain(1));
  EXPECT_EQ(scaled[2], 0);
  EXPECT_EQ(scaled[3], 0);
}

TEST(RopeSpec, RefusesWhatItDoesNotKnow) {
  expect_error(ErrorCode::not_supported, "su", [] {
    read_rope({{"type", "su"}, {"factor", 2.0}});
  });
  // A key for which mlx-lm does not ask changes nothing there.
  const auto rope =
      read_rope({{"type", "linear"}, {"factor", 2.0}, {"mood", 1}});
  EXPECT_EQ(rope.factor, 2);
  expect_error(ErrorCode::corrupt, "factor", [] {
    read_rope({{"type", "linear"}});
  });
  expect_error(ErrorCode::corrupt, "factor", [] {
    read_rope({{"type", "yarn"}, {"factor", -2.0}});
  });
  expect_error(ErrorCode::corrupt, "long_factor", [] {
    read_rope(
        {{"type", "longrope"},
         {"original_max_position_embeddings", 16},
         {"short_factor", {1}},
         {"long_factor", {1.0, 2.0}}});
  });
  expect_error(ErrorCode::corrupt, "max_position_embeddings", [] {
    read_rope({{"type", "dynamic"}, {"factor", 2.0}}, {});
  });
  expect_error(ErrorCode::corrupt, "mrope_section", [] {
    read_rope({{"type", "mrope"}, {"mrope_section", {1, 2}}});
  });
}

}  // namespace
}  // namespace pennyweight
