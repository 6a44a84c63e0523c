#include "pipeline/time_limit.h"

#include <gtest/gtest.h>

#include "support/tiny_model.h"

namespace pennyweight {

namespace {

using testing::tiny_config;
using testing::TinyModel;

constexpr int kLength = 512;
constexpr double kRate = 1e9;

StageSizes sizes() {
  return {
      .gptq_sequences = 192,
      .learn_steps = 128,
      .dwq_sequences = 256,
      .dwq_epochs = 2,
      .dwq_rate = 1e-4};
}

struct Fixture {
  TinyModel tiny{tiny_config("llama")};
  TimePlan plan = plan_time(tiny.model, sizes(), kLength, kRate);
  // What a run takes after the widths are known.
  double whole = plan.gptq + plan.learned + plan.dwq + plan.rest;

  StageSizes fit(double seconds, std::string* said = nullptr) const {
    auto fitted = sizes();
    const auto text =
        fit_into_time(tiny.model, kLength, kRate, seconds, fitted);
    if (said) {
      *said = text;
    }
    return fitted;
  }
};

}  // namespace

TEST(TimePlan, GrowsWithSizesAndFallsWithTheRate) {
  Fixture fixture;
  const auto& model = fixture.tiny.model;
  auto more = sizes();
  more.gptq_sequences *= 2;
  more.learn_steps *= 2;
  more.dwq_sequences *= 2;
  const auto larger = plan_time(model, more, kLength, kRate);
  EXPECT_GT(larger.gptq, fixture.plan.gptq);
  EXPECT_GT(
      larger.learned - larger.gptq, fixture.plan.learned - fixture.plan.gptq);
  EXPECT_DOUBLE_EQ(larger.dwq, 2 * fixture.plan.dwq);
  EXPECT_LT(
      plan_time(model, sizes(), kLength, 2 * kRate).total(),
      fixture.plan.total());
}

TEST(TimePlan, NothingIsCutWhereTimeIsEnough) {
  Fixture fixture;
  std::string said;
  const auto fitted = fixture.fit(1.001 * fixture.whole, &said);
  EXPECT_EQ(said, "");
  EXPECT_EQ(fitted.learn_steps, 128);
  EXPECT_EQ(fitted.dwq_epochs, 2);
}

TEST(TimePlan, WhatIsCutFits) {
  Fixture fixture;
  for (double share : {0.95, 0.8, 0.6}) {
    const double seconds = share * fixture.whole;
    std::string said;
    const auto fitted = fixture.fit(seconds, &said);
    const auto plan = plan_time(fixture.tiny.model, fitted, kLength, kRate);
    EXPECT_LE(plan.gptq + plan.learned + plan.dwq + plan.rest, seconds);
    EXPECT_EQ(fitted.gptq_sequences, 192);
    EXPECT_NE(said.find("--time-limit"), std::string::npos);
    EXPECT_NE(said.find("distillation"), std::string::npos) << said;
  }
}

// Choosing the rate takes as many steps for little text as for much.
TEST(TimePlan, TrialsOfTheRateAreCounted) {
  Fixture fixture;
  const auto& model = fixture.tiny.model;
  auto free = sizes();
  free.dwq_rate.reset();
  free.learn_steps = 0;
  free.dwq_sequences = 32;
  auto given = free;
  given.dwq_rate = 1e-4;
  EXPECT_GT(
      plan_time(model, free, kLength, kRate).dwq,
      2 * plan_time(model, given, kLength, kRate).dwq);
  free.dwq_sequences = 128;
  const auto plan = plan_time(model, free, kLength, kRate);
  auto fitted = free;
  const double seconds = plan.after_costs() - 0.3 * plan.dwq;
  EXPECT_NE(fit_into_time(model, kLength, kRate, seconds, fitted), "");
  EXPECT_GE(fitted.dwq_sequences, 32);
  EXPECT_LE(
      plan_time(model, fitted, kLength, kRate).dwq, 0.7 * plan.dwq + 1e-6);
}

TEST(TimePlan, CostsTakeAFifthOfAShortTime) {
  Fixture fixture;
  const auto& model = fixture.tiny.model;
  auto enough = sizes();
  const double total = plan_time(model, enough, kLength, kRate).total();
  EXPECT_EQ(
      fit_costs_into_time(model, kLength, kRate, 1.001 * total, enough), "");
  EXPECT_EQ(enough.cost_sequences, sizes().cost_sequences);
  // Without what does not shrink with the sequences.
  auto none = sizes();
  none.cost_sequences = 0;
  const double fixed = plan_time(model, none, kLength, kRate).costs;
  const double each = (fixture.plan.costs - fixed) / sizes().cost_sequences;
  auto some = sizes();
  const auto said = fit_costs_into_time(
      model, kLength, kRate, 5 * (fixed + 6.5 * each), some);
  EXPECT_EQ(some.cost_sequences, 6) << said;
  EXPECT_NE(said.find("costs were cut from 16 to 6"), std::string::npos);
  auto least = sizes();
  EXPECT_NE(fit_costs_into_time(model, kLength, kRate, 0, least), "");
  EXPECT_EQ(least.cost_sequences, 4);
}

// A machine on which costs took twice as long as planned gets half as much.
TEST(TimePlan, WhatIsLeftFollowsThePaceOfTheCosts) {
  Fixture fixture;
  const auto& model = fixture.tiny.model;
  auto asked = sizes();
  asked.learn_steps = 0;
  asked.dwq_sequences = 0;
  const auto plan = plan_time(model, asked, kLength, kRate);
  TimeLimit limit(model, kLength, kRate, 1.1 * plan.total());
  auto planned = asked;
  EXPECT_EQ(limit.fit_stages(plan.costs, planned), "");
  limit.costs_took(2 * plan.costs, asked);
  auto slower = asked;
  EXPECT_NE(limit.fit_stages(plan.costs, slower), "");
  const auto after = plan_time(model, slower, kLength, kRate).after_costs();
  EXPECT_LE(after, 0.55 * plan.total());
  EXPECT_GT(slower.gptq_sequences, 8);
}

TEST(TimePlan, StagesWithTooLittleTimeAreLeftOut) {
  Fixture fixture;
  const auto& plan = fixture.plan;
  // Distillation has what is left where steps would be too few.
  const double seconds =
      plan.rest + 2 * plan.gptq + 0.1 * (plan.learned - plan.gptq + plan.dwq);
  const auto fitted = fixture.fit(seconds);
  EXPECT_EQ(fitted.learn_steps, 0);
  const auto after = plan_time(fixture.tiny.model, fitted, kLength, kRate);
  EXPECT_GE(fitted.dwq_sequences, 32);
  EXPECT_LE(after.gptq + after.dwq + after.rest, seconds);
  // And nothing but a few sequences of GPTQ in no time.
  std::string said;
  const auto least = fixture.fit(0, &said);
  EXPECT_EQ(least.learn_steps, 0);
  EXPECT_EQ(least.dwq_sequences, 0);
  EXPECT_EQ(least.gptq_sequences, 8);
  EXPECT_NE(said.find("from 192 to 8"), std::string::npos) << said;
}

}  // namespace pennyweight
