#include "eval/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "support/expect_error.h"

namespace pennyweight {
namespace {

TEST(Metrics, MeanAndItsStandardError) {
  auto mean = mean_of({1, 2, 4, 5});
  EXPECT_DOUBLE_EQ(mean.value, 3);
  // Variance with 3 degrees of freedom: 10 / 3.
  EXPECT_DOUBLE_EQ(mean.standard_error, std::sqrt(10.0 / 3 / 4));
  EXPECT_EQ(mean_of({7}).standard_error, 0);
}

TEST(Metrics, PerplexityByTheDeltaMethod) {
  auto perplexity = perplexity_of({1, 2, 4, 5});
  EXPECT_DOUBLE_EQ(perplexity.value, std::exp(3.0));
  EXPECT_DOUBLE_EQ(
      perplexity.standard_error, std::exp(3.0) * std::sqrt(10.0 / 12));
}

TEST(Metrics, QuantilesInterpolate) {
  std::vector<float> values = {5, 1, 4, 2, 3};
  EXPECT_DOUBLE_EQ(quantile(values, 0.5), 3);
  EXPECT_DOUBLE_EQ(quantile(values, 0), 1);
  EXPECT_DOUBLE_EQ(quantile(values, 1), 5);
  EXPECT_DOUBLE_EQ(quantile(values, 0.9), 4.6);
  std::vector<float> pair = {2, 1};
  EXPECT_DOUBLE_EQ(quantile(pair, 0.5), 1.5);
}

TEST(Metrics, SummaryHasTheReferenceOnlyIfGiven) {
  TokenScores scores{.nll = {1, 2}};
  EXPECT_FALSE(summarize(scores, 1).reference.has_value());
  scores.reference_nll = {1, 1};
  scores.kl = {0.5f, 0};
  scores.agrees = {0, 1};
  auto result = summarize(scores, 1);
  ASSERT_TRUE(result.reference.has_value());
  EXPECT_DOUBLE_EQ(result.reference->kl.max, 0.5);
  EXPECT_DOUBLE_EQ(result.reference->top1.value, 0.5);
  EXPECT_EQ(result.tokens, 2);
}

TEST(Metrics, NothingAndNonFiniteAreErrors) {
  testing::expect_error(
      ErrorCode::invalid_argument, "no token", [] { summarize({}, 0); });
  float nan = std::numeric_limits<float>::quiet_NaN();
  testing::expect_error(ErrorCode::numeric, "1 of 2", [&] {
    summarize({.nll = {1, nan}}, 1);
  });
  testing::expect_error(ErrorCode::numeric, "KL", [&] {
    summarize(
        {.nll = {1}, .reference_nll = {1}, .kl = {INFINITY}, .agrees = {1}}, 1);
  });
}

}  // namespace
}  // namespace pennyweight
