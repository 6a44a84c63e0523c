#include "method/widths/dynamic.h"

#include <gtest/gtest.h>
#include <mlx/mlx.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "ops/rounding/quantize.h"
#include "support/expect_error.h"

namespace pennyweight {

namespace {

using pennyweight::testing::expect_error;

TEST(Candidates, AreRead) {
  const auto list = parse_candidates("2:64,4:32,8,bf16,4:32");
  ASSERT_EQ(list.size(), 4u);
  EXPECT_EQ(candidate_name(list[0]), "2:64");
  EXPECT_EQ(candidate_name(list[1]), "4:32");
  EXPECT_EQ(candidate_name(list[2]), "8:64");
  EXPECT_EQ(candidate_name(list[3]), "floats");
  for (const char* wrong : {"", "4:", "x", "7:64", "4:48", "4:64,", "4:64:2"}) {
    EXPECT_THROW(parse_candidates(wrong), Error) << wrong;
  }
}

struct Problem {
  std::vector<Alternatives> modules;

  double best(int64_t budget, size_t from = 0) const {
    if (from == modules.size()) {
      return budget >= 0 ? 0 : HUGE_VAL;
    }
    double least = HUGE_VAL;
    for (size_t i = 0; i < modules[from].bytes.size(); ++i) {
      const int64_t left = budget - modules[from].bytes[i];
      if (left >= 0) {
        least = std::min(least, modules[from].losses[i] + best(left, from + 1));
      }
    }
    return least;
  }
};

Problem random_problem(unsigned seed, size_t modules) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> unit(0, 1);
  Problem problem;
  for (size_t i = 0; i < modules; ++i) {
    const double size = 50 + 1000 * unit(random);
    const double loss = unit(random);
    Alternatives own;
    for (int bits : {3, 4, 5, 6, 8}) {
      own.bytes.push_back(int64_t(size * bits));
      own.losses.push_back(loss * std::pow(4.0, -bits) * (1 + unit(random)));
    }
    problem.modules.push_back(own);
  }
  return problem;
}

TEST(Knapsack, IsNeverAboveAndCloseToTheBest) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    const auto problem = random_problem(seed, 6);
    int64_t least = 0, most = 0;
    for (const auto& module : problem.modules) {
      least += module.bytes.front();
      most += module.bytes.back();
    }
    const int64_t budget = least + (most - least) * int64_t(seed + 1) / 45;
    const auto chosen = choose_alternatives(problem.modules, budget);
    int64_t bytes = 0;
    double loss = 0;
    for (size_t i = 0; i < chosen.size(); ++i) {
      bytes += problem.modules[i].bytes[chosen[i]];
      loss += problem.modules[i].losses[chosen[i]];
    }
    EXPECT_LE(bytes, budget);
    // All but exact: a unit is a 50,000th of the room.
    EXPECT_LE(loss, 1.001 * problem.best(budget)) << seed;
  }
}

// One large module that is worth what many small ones together are not, each
// of which gains more a byte.
TEST(Knapsack, SeesTheLargeModule) {
  std::vector<Alternatives> modules{{{0, 1000}, {10.0, 0.0}}};
  for (int i = 0; i < 100; ++i) {
    modules.push_back({{0, 10}, {i < 5 ? 5.0 : 0.1001, 0.0}});
  }
  const auto chosen = choose_alternatives(modules, 1050);
  EXPECT_EQ(chosen[0], 1u);
  for (size_t i = 1; i <= 5; ++i) {
    EXPECT_EQ(chosen[i], 1u);
  }
}

TEST(Knapsack, FillsTheBudget) {
  const auto problem = random_problem(7, 200);
  int64_t least = 0;
  for (const auto& module : problem.modules) {
    least += module.bytes.front();
  }
  const int64_t budget = least * 14 / 10;
  const auto chosen = choose_alternatives(problem.modules, budget);
  int64_t bytes = 0;
  for (size_t i = 0; i < chosen.size(); ++i) {
    bytes += problem.modules[i].bytes[chosen[i]];
  }
  EXPECT_LE(bytes, budget);
  EXPECT_GE(double(bytes), 0.999 * double(budget));
  expect_error(ErrorCode::invalid_argument, "5 bytes below the smallest", [&] {
    choose_alternatives(problem.modules, least - 5);
  });
}

// For a quadratic loss 1/2 h |e|^2 the estimate is exact.
TEST(Losses, AreAQuadraticsOwn) {
  mx::set_default_device(mx::Device::cpu);
  const auto weight = mx::random::normal({64, 128}, mx::random::key(1));
  const QuantSpec low{"affine", 3, 64};
  const auto at = ops::dequantize(quantize(weight, low), mx::float32);
  const float h = 0.3f;
  const auto gradient = mx::multiply(mx::array(h), mx::subtract(at, weight));
  const std::vector<Candidate> candidates{
      low, QuantSpec{"affine", 4, 32}, std::nullopt};
  const auto effects = rounding_effects(weight, at, gradient, candidates);
  EXPECT_EQ(effects[0].alignment, 0);
  EXPECT_EQ(effects[2].error, 0);
  const auto losses =
      estimate_losses(effects[2].alignment, effects[0].error, effects);
  for (size_t i = 0; i < candidates.size(); ++i) {
    const auto own = candidates[i]
        ? ops::dequantize(quantize(weight, *candidates[i]), mx::float32)
        : weight;
    const auto error = mx::subtract(own, weight);
    const double loss = 0.5 * h * mx::sum(mx::square(error)).item<float>();
    EXPECT_NEAR(losses[i], loss, 1e-5 * (1 + loss));
  }
}

}  // namespace

}  // namespace pennyweight
