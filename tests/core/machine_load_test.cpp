#include "core/machine_load.h"

#include <gtest/gtest.h>

#include "core/time_left.h"

namespace pennyweight {

TEST(MachineLoad, ABusyMachineIsCalledThat) {
  // Of 4 cores 2 are wanted: one other program does no harm, three do.
  EXPECT_EQ(describe_load({4, 0.05}, 2, 0.02), "");
  EXPECT_EQ(describe_load({4, 1.0}, 2, 0.02), "");
  const auto text = describe_load({4, 3.0}, 2, 0.02);
  EXPECT_NE(text.find("busy"), std::string::npos) << text;
  EXPECT_NE(text.find("3.0 of its 4 cores"), std::string::npos) << text;
  // What a system does by itself is no load.
  EXPECT_EQ(describe_load({2, 0.1}, 2, 0.02), "");
  EXPECT_NE(describe_load({2, 0.3}, 2, 0.02), "");
}

TEST(MachineLoad, SamplesThatLieApartAreTold) {
  const auto text = describe_load({2, 0}, 2, 0.25);
  EXPECT_NE(text.find("not steady"), std::string::npos) << text;
  EXPECT_NE(text.find("25 %"), std::string::npos) << text;
}

TEST(MachineLoad, OthersSlowDownWhatTheyShareCoresWith) {
  EXPECT_DOUBLE_EQ(slowdown({2, 0}, 2), 1);
  EXPECT_DOUBLE_EQ(slowdown({2, 1}, 2), 2);
  EXPECT_DOUBLE_EQ(slowdown({8, 4}, 2), 1);
  EXPECT_DOUBLE_EQ(slowdown({2, 5}, 2), 4);  // all get a share
}

TEST(MachineLoad, SpreadIsOfTheMiddleHalf) {
  EXPECT_DOUBLE_EQ(spread_of({1}), 0);
  EXPECT_DOUBLE_EQ(spread_of({10, 10, 10}), 0);
  EXPECT_DOUBLE_EQ(spread_of({9, 10, 11}), 0.1);
  // One that is far off is not the machine's.
  EXPECT_DOUBLE_EQ(spread_of({90, 9, 10, 11, 10, 10, 9, 11}), 0.1);
}

TEST(MachineLoad, ThisProcessIsNoOther) {
  const LoadMeter meter;
  volatile double sum = 0;
  for (int i = 0; i < 20000000; ++i) {
    sum = sum + 1;
  }
  const auto load = meter.load();
  EXPECT_GE(load.cores, 1);
  EXPECT_GE(load.others, 0);
}

TEST(TimeLeft, GoesByPlanAndByWhatIsDone) {
  TimeLeft left({1, 3, 4});
  EXPECT_FALSE(left.seconds());
  left.took(10);
  EXPECT_DOUBLE_EQ(*left.seconds(), 70);
  left.took(10);  // faster than the plan has it, beside the first
  EXPECT_DOUBLE_EQ(*left.seconds(), 20);
  left.took(1);
  EXPECT_DOUBLE_EQ(*left.seconds(), 0);
}

TEST(TimeLeft, WhatWasDoneBeforeSaysNothing) {
  TimeLeft left({5, 5, 10});
  left.took(0.1, true);
  EXPECT_FALSE(left.seconds());
  left.took(2);
  EXPECT_DOUBLE_EQ(*left.seconds(), 4);
}

}  // namespace pennyweight
