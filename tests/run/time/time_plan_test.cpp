#include "run/time/time_limit.h"

#include <gtest/gtest.h>

#include "planned_rates.h"
#include "run/time/stage_times.h"
#include "support/tiny_model.h"

namespace pennyweight {

namespace {

using testing::planned_rates;
using testing::tiny_config;
using testing::TinyModel;
using testing::typical_rates;

constexpr int kLength = 512;

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
  MachineRates rates = typical_rates(tiny.model);

  TimeBasis basis() const {
    return {tiny.model, kLength, rates};
  }
  TimePlan plan(const StageSizes& of) const {
    return basis().plan(of);
  }
  /// From GPTQ on.
  StageSizes fit(double seconds, std::string* said = nullptr) const {
    auto fitted = sizes();
    const auto text =
        fit_into_time(basis(), PlannedStage::gptq, seconds, fitted);
    if (said) {
      *said = text;
    }
    return fitted;
  }
};

/// Sizes of a run with nothing but what a test counts.
StageSizes bare(int gptq_sequences = 0) {
  return {
      .cost_sequences = 0,
      .gate_sequences = 0,
      .block_gate = 0,
      .report_sequences = 0,
      .gptq_sequences = gptq_sequences};
}

}  // namespace

TEST(TimePlan, AddsUp) {
  Fixture fixture;
  const auto plan = fixture.plan(sizes());
  EXPECT_DOUBLE_EQ(
      plan.total(),
      plan.start + plan.costs + plan.nearest + plan.gptq + plan.learned +
          plan.dwq + plan.report);
  EXPECT_DOUBLE_EQ(
      plan.from(PlannedStage::learned), plan.learned + plan.dwq + plan.report);
  EXPECT_GT(plan.learned, plan.gptq);
}

TEST(TimePlan, GrowsWithSizesAndWithTheRates) {
  Fixture fixture;
  auto more = sizes();
  more.gptq_sequences *= 2;
  more.learn_steps *= 2;
  more.dwq_sequences *= 2;
  const auto plan = fixture.plan(sizes());
  const auto larger = fixture.plan(more);
  EXPECT_GT(larger.gptq, plan.gptq);
  EXPECT_GT(larger.learned - larger.gptq, plan.learned - plan.gptq);
  EXPECT_GT(larger.dwq, 1.5 * plan.dwq);
  auto slow = fixture.rates;
  slow.kinds[0].walk *= 2;
  EXPECT_GT(
      plan_time(fixture.tiny.model, sizes(), kLength, slow).gptq, plan.gptq);
}

// 2 blocks of q 32, k 16, v 16, o 32, gate 48, up 48 rows of 32 and down 32
// rows of 48; 61 rows of 32 outside them.
TEST(TimePlan, RoundingsAreCounted) {
  TinyModel tiny(tiny_config("llama"));
  auto rates = planned_rates(tiny.model);
  rates.widths[32].round = 1;
  rates.widths[48].round = 100;
  rates.tables[32].round = 10000;
  EXPECT_DOUBLE_EQ(
      plan_time(tiny.model, bare(), kLength, rates).gptq,
      2 * (192 + 100 * 32) + 10000 * 61);
  // With text to judge by the first block is rounded twice more.
  auto gated = bare();
  gated.block_gate = 1;
  EXPECT_DOUBLE_EQ(
      plan_time(tiny.model, gated, kLength, rates).gptq,
      4 * (192 + 100 * 32) + 10000 * 61);
}

// q, k and v read one input; o, gate with up and down one each.
TEST(TimePlan, HessiansAreFactoredOncePerInput) {
  TinyModel tiny(tiny_config("llama"));
  auto rates = planned_rates(tiny.model);
  rates.widths[32].factor = 1;
  rates.widths[48].factor = 100;
  rates.tables[32].factor = 10000;
  const auto plan = plan_time(tiny.model, bare(), kLength, rates);
  EXPECT_DOUBLE_EQ(plan.gptq, 2 * (3 + 100) + 10000);
  EXPECT_DOUBLE_EQ(plan.costs, 2 * (3 + 100) + 10000);
}

TEST(TimePlan, ExpertsOfAStackShareTheCostsHessian) {
  auto config = tiny_config("mixtral");
  config["num_local_experts"] = 4;
  config["num_experts_per_tok"] = 2;
  TinyModel tiny(config);
  auto rates = planned_rates(tiny.model);
  rates.widths[32].factor = 1;
  rates.widths[48].factor = 100;
  const auto plan = plan_time(tiny.model, bare(), kLength, rates);
  // q's, o's, the router's; each of 4 experts its own, for gate and up one.
  EXPECT_DOUBLE_EQ(plan.gptq, 2 * (3 + 4 + 4 * 100));
  // In the costs one of the stack of gates, one of ups.
  EXPECT_DOUBLE_EQ(plan.costs, 2 * (3 + 2 + 100));
}

TEST(TimePlan, TokensAreCounted) {
  TinyModel tiny(tiny_config("llama"));
  auto rates = planned_rates(tiny.model);
  rates.kinds[0].walk = 1;
  EXPECT_DOUBLE_EQ(
      plan_time(tiny.model, bare(3), kLength, rates).gptq, 2 * 3 * kLength);
  auto forward = planned_rates(tiny.model);
  forward.kinds[0].forward = 1;
  auto measured = bare();
  measured.gate_sequences = 2;
  measured.report_sequences = 5;
  // The full model and that of the first stage; the others find the full
  // model's states.
  const auto plan = plan_time(tiny.model, measured, kLength, forward);
  EXPECT_DOUBLE_EQ(plan.nearest, 2 * 2 * 2 * kLength);
  EXPECT_DOUBLE_EQ(plan.gptq, 2 * 2 * kLength);
  EXPECT_DOUBLE_EQ(plan.report, 2 * 2 * 5 * kLength);
}

// Steps of a batch of tokens with gradients by the weights, and a part of the
// text for curvatures.
TEST(TimePlan, StepsOfLearnedRoundingAreCounted) {
  TinyModel tiny(tiny_config("llama"));
  auto rates = planned_rates(tiny.model);
  rates.kinds[0].learn = 1;
  auto few = bare(4);
  few.learn_steps = 10;
  auto more = few;
  more.learn_steps = 30;
  const auto steps = [&](const StageSizes& of) {
    return StageTimes(tiny.model, of, kLength, rates).learned_steps();
  };
  EXPECT_DOUBLE_EQ(steps(few), 2 * (4 * kLength + 10 * 4096));
  EXPECT_DOUBLE_EQ(steps(more) - steps(few), 2 * 20 * 4096);
}

TEST(TimePlan, KindsOfBlocksAreTold) {
  auto config = tiny_config("llama");
  config["num_hidden_layers"] = 5;
  const auto alike = block_kinds(testing::spec_of(config), kLength);
  EXPECT_EQ(alike.sample, (std::vector<size_t>{2}));
  auto spec = testing::spec_of(config);
  spec.blocks[4].attention.window = 16;
  const auto kinds = block_kinds(spec, kLength);
  EXPECT_EQ(kinds.kind, (std::vector<size_t>{0, 0, 0, 0, 1}));
  EXPECT_EQ(kinds.sample, (std::vector<size_t>{2, 4}));
  // A window that the text does not fill changes nothing.
  EXPECT_EQ(block_kinds(spec, 8).sample.size(), 1u);
}

TEST(TimePlan, WideLinearsGoOnAsTheirPartsDo) {
  // 2 w^2 + 3 w^3, and a plain w.
  const auto cubic = [](double w) { return 2 * w * w + 3 * w * w * w; };
  EXPECT_NEAR(
      at_width(100, {10, cubic(10)}, {20, cubic(20)}, 2), cubic(100), 1e-6);
  EXPECT_NEAR(at_width(100, {10, 10}, {20, 20}, 1), 100, 1e-9);
  // Noise never makes what is wider cheaper than by its size.
  EXPECT_NEAR(at_width(100, {10, 11}, {20, 20}, 1), 100, 1e-9);
}

TEST(TimePlan, RatesOfAModelAreMeasured) {
  auto config = tiny_config("llama");
  config["hidden_size"] = 64;
  config["intermediate_size"] = 128;
  config["head_dim"] = 16;
  TinyModel tiny(config);
  const auto rates = measure_rates(tiny.model, 16);
  ASSERT_EQ(rates.kinds.size(), 1u);
  const auto& block = rates.kinds.front();
  for (const double rate :
       {block.load,
        block.forward,
        block.costs,
        block.walk,
        block.learn,
        block.distil,
        block.next,
        block.next_packed}) {
    EXPECT_GT(rate, 0);
  }
  EXPECT_GE(block.walk, 2 * block.forward);
  for (const int64_t in : {64, 128}) {
    const auto& own = rates.widths.at(in);
    EXPECT_GT(own.factor, 0);
    EXPECT_GT(own.round, own.pass);
    EXPECT_GT(own.learn, 0);
  }
  EXPECT_GT(rates.tables.at(64).pass, 0);
  EXPECT_GT(rates.head.score, 0);
  const auto plan = plan_time(tiny.model, sizes(), 16, rates);
  EXPECT_GT(plan.costs, 0);
  EXPECT_GT(plan.dwq, 0);
}

TEST(TimePlan, ARangeHoldsWhatTrainingMayTake) {
  Fixture fixture;
  auto all = sizes();
  all.dwq_rate.reset();
  const auto plan = fixture.plan(all);
  const auto range = plan_range(plan, fixture.rates);
  EXPECT_LT(range.low, 0.9 * plan.total());
  EXPECT_GT(range.high, 1.1 * plan.total());
  auto plain = sizes();
  plain.learn_steps = 0;
  plain.dwq_sequences = 0;
  const auto sure = plan_range(fixture.plan(plain), fixture.rates);
  EXPECT_LT(sure.high / sure.low, range.high / range.low);
  // Samples that lie apart widen it, and so does who else is there.
  auto unsteady = fixture.rates;
  unsteady.spread = 0.3;
  EXPECT_LT(plan_range(plan, unsteady).low, range.low);
  EXPECT_GT(plan_range(plan, unsteady).high, range.high);
  auto shared = fixture.rates;
  shared.load.others = 1;
  EXPECT_NEAR(plan_range(plan, shared).low, range.low / 2, 1e-9);
  EXPECT_NE(shared.warning().find("busy"), std::string::npos);
  EXPECT_EQ(fixture.rates.warning(), "");
}

TEST(TimePlan, NothingIsCutWhereTimeIsEnough) {
  Fixture fixture;
  std::string said;
  const auto whole = fixture.plan(sizes()).from(PlannedStage::gptq);
  const auto fitted = fixture.fit(1.001 * whole, &said);
  EXPECT_EQ(said, "");
  EXPECT_EQ(fitted.learn_steps, 128);
  EXPECT_EQ(fitted.dwq_epochs, 2);
}

TEST(TimePlan, WhatIsCutFits) {
  Fixture fixture;
  const auto whole = fixture.plan(sizes()).from(PlannedStage::gptq);
  for (double share : {0.95, 0.8, 0.6}) {
    const double seconds = share * whole;
    std::string said;
    const auto fitted = fixture.fit(seconds, &said);
    const double after = fixture.plan(fitted).from(PlannedStage::gptq);
    EXPECT_LE(after, seconds);
    EXPECT_GE(after, 0.9 * seconds) << said;
    EXPECT_EQ(fitted.gptq_sequences, 192);
    EXPECT_NE(said.find("--time-limit"), std::string::npos);
    EXPECT_NE(said.find("distillation"), std::string::npos) << said;
  }
}

// Choosing the rate takes as many steps for little text as for much.
TEST(TimePlan, TrialsOfTheRateAreCounted) {
  Fixture fixture;
  auto free = sizes();
  free.dwq_rate.reset();
  free.learn_steps = 0;
  free.dwq_sequences = 32;
  auto given = free;
  given.dwq_rate = 1e-4;
  EXPECT_GT(fixture.plan(free).dwq, 2 * fixture.plan(given).dwq);
  free.dwq_sequences = 128;
  const auto plan = fixture.plan(free);
  auto fitted = free;
  const double seconds = plan.from(PlannedStage::gptq) - 0.3 * plan.dwq;
  EXPECT_NE(
      fit_into_time(fixture.basis(), PlannedStage::gptq, seconds, fitted), "");
  EXPECT_GE(fitted.dwq_sequences, 32);
  EXPECT_LE(fixture.plan(fitted).dwq, 0.7 * plan.dwq + 1e-6);
}

TEST(TimePlan, CostsTakeAFifthOfAShortTime) {
  Fixture fixture;
  auto enough = sizes();
  const auto plan = fixture.plan(enough);
  EXPECT_EQ(
      fit_costs_into_time(fixture.basis(), 1.001 * plan.total(), enough), "");
  EXPECT_EQ(enough.cost_sequences, sizes().cost_sequences);
  const auto costs = [&](int sequences) {
    auto own = sizes();
    own.cost_sequences = sequences;
    return fixture.plan(own).costs;
  };
  auto some = sizes();
  const auto said =
      fit_costs_into_time(fixture.basis(), 5 * (costs(6) + costs(7)) / 2, some);
  EXPECT_EQ(some.cost_sequences, 6) << said;
  EXPECT_NE(said.find("costs were cut from 16 to 6"), std::string::npos);
  auto least = sizes();
  EXPECT_NE(fit_costs_into_time(fixture.basis(), 0, least), "");
  EXPECT_EQ(least.cost_sequences, 4);
}

// A machine on which stages took twice as long as planned gets half as much.
TEST(TimePlan, WhatIsLeftFollowsThePaceOfWhatIsDone) {
  Fixture fixture;
  auto asked = sizes();
  asked.learn_steps = 0;
  asked.dwq_sequences = 0;
  const auto plan = fixture.plan(asked);
  TimeLimit limit(
      fixture.tiny.model, kLength, fixture.rates, 1.1 * plan.total());
  auto planned = asked;
  EXPECT_EQ(limit.fit(PlannedStage::nearest, plan.costs, planned), "");
  limit.took(PlannedStage::costs, 2 * plan.costs, asked);
  EXPECT_NEAR(limit.pace(), 2, 1e-9);
  auto slower = asked;
  EXPECT_NE(limit.fit(PlannedStage::nearest, plan.costs, slower), "");
  EXPECT_LE(
      fixture.plan(slower).from(PlannedStage::nearest), 0.55 * plan.total());
  EXPECT_GT(slower.gptq_sequences, 8);
  // A stage that was faster than that makes up for it.
  limit.took(PlannedStage::nearest, plan.nearest, asked);
  EXPECT_LT(limit.pace(), 2);
}

// What is done is no longer cut, nor counted.
TEST(TimePlan, OnlyStagesToComeAreCut) {
  Fixture fixture;
  auto asked = sizes();
  const auto plan = fixture.plan(asked);
  const double enough = 1.001 * plan.from(PlannedStage::dwq);
  EXPECT_EQ(
      fit_into_time(fixture.basis(), PlannedStage::dwq, enough, asked), "");
  const double half = plan.report + 0.5 * plan.dwq;
  EXPECT_NE(fit_into_time(fixture.basis(), PlannedStage::dwq, half, asked), "");
  EXPECT_EQ(asked.gptq_sequences, sizes().gptq_sequences);
  EXPECT_EQ(asked.learn_steps, sizes().learn_steps);
  EXPECT_LE(fixture.plan(asked).from(PlannedStage::dwq), half);
}

TEST(TimePlan, StagesWithTooLittleTimeAreLeftOut) {
  Fixture fixture;
  const auto plan = fixture.plan(sizes());
  // Distillation has what is left where steps would be too few.
  const double seconds =
      plan.report + 2 * plan.gptq + 0.1 * (plan.learned - plan.gptq + plan.dwq);
  const auto fitted = fixture.fit(seconds);
  EXPECT_EQ(fitted.learn_steps, 0);
  EXPECT_GE(fitted.dwq_sequences, 32);
  EXPECT_LE(fixture.plan(fitted).from(PlannedStage::gptq), seconds);
  // And nothing but a few sequences of GPTQ in no time.
  std::string said;
  const auto least = fixture.fit(0, &said);
  EXPECT_EQ(least.learn_steps, 0);
  EXPECT_EQ(least.dwq_sequences, 0);
  EXPECT_EQ(least.gptq_sequences, 8);
  EXPECT_NE(said.find("from 192 to 8"), std::string::npos) << said;
}

}  // namespace pennyweight
