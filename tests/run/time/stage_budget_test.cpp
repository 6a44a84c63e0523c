#include "run/time/stage_budget.h"

#include <gtest/gtest.h>

#include "core/json.h"
#include "planned_rates.h"
#include "support/tiny_model.h"

namespace pennyweight {

namespace {

using testing::TemporaryFolder;
using testing::tiny_config;
using testing::TinyModel;
using testing::typical_rates;

constexpr int kBudgetLength = 512;

struct BudgetFixture {
  TinyModel tiny{tiny_config("llama")};
  TemporaryFolder folder;
  WidthPlan widths;
  std::vector<std::string> notes;

  StagedWork open() const {
    return StagedWork(folder.path() / "out", Json::object(), {false, false});
  }
  /// Of a machine so many times as slow as typical_rates() have it.
  StageBudget budget(StagedWork& work, double slow, double seconds) {
    auto rates = typical_rates(tiny.model);
    rates.kinds[0].walk *= slow;
    return StageBudget(
        TimeLimit(tiny.model, kBudgetLength, rates, seconds),
        StageBudget::Clock::now(),
        work,
        [this](const std::string& text) { notes.push_back(text); });
  }
  /// Of what comes after the widths.
  double seconds(const StageSizes& sizes) const {
    const auto rates = typical_rates(tiny.model);
    return plan_time(tiny.model, sizes, kBudgetLength, rates)
        .from(PlannedStage::gptq);
  }
};

}  // namespace

// A run that is gone on with on another machine, or at another time, does what
// it has begun: its bytes are those of one that was never stopped.
TEST(StageBudget, WhatAStageBeganWithStays) {
  BudgetFixture fixture;
  const StageSizes wanted;
  const double limit = 0.7 * fixture.seconds(wanted);
  auto first = wanted;
  {
    auto work = fixture.open();
    auto budget = fixture.budget(work, 1, limit);
    budget.begin(fixture.widths, wanted);
    budget.fit("gptq", first);
    EXPECT_LT(first.gptq_sequences, wanted.gptq_sequences);
    ASSERT_EQ(fixture.notes.size(), 1u);
  }
  auto work = fixture.open();
  ASSERT_TRUE(work.resumed());
  auto budget = fixture.budget(work, 3, limit);
  budget.begin(fixture.widths, wanted);
  auto again = wanted;
  budget.fit("gptq", again);
  EXPECT_EQ(to_json(again), to_json(first));
  ASSERT_EQ(fixture.notes.size(), 2u);
  EXPECT_EQ(fixture.notes[0], fixture.notes[1]);
}

// What was cut for fear comes back when stages were faster than that.
TEST(StageBudget, StagesToComeAreFittedAnew) {
  BudgetFixture fixture;
  const StageSizes wanted;
  auto work = fixture.open();
  auto budget = fixture.budget(work, 1, 0.7 * fixture.seconds(wanted));
  budget.begin(fixture.widths, wanted);
  auto sizes = wanted;
  budget.fit("nearest", sizes);
  const int before = sizes.gptq_sequences;
  EXPECT_LT(before, wanted.gptq_sequences);
  budget.took("nearest", 0, sizes);
  budget.fit("gptq", sizes);
  EXPECT_GT(sizes.gptq_sequences, before);
}

}  // namespace pennyweight
