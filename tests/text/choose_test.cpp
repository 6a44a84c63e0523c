#include "text/choose.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace pennyweight {
namespace {

TEST(Choose, GivesDistinctIndices) {
  auto chosen = choose(1000, 300, 7);
  EXPECT_EQ(chosen.size(), 300u);
  EXPECT_EQ(std::set<size_t>(chosen.begin(), chosen.end()).size(), 300u);
  EXPECT_LT(*std::max_element(chosen.begin(), chosen.end()), 1000u);
  EXPECT_EQ(choose(5, 9, 7).size(), 5u);
  EXPECT_TRUE(choose(0, 3, 7).empty());
}

TEST(Choose, IsTheSameEverywhere) {
  // Golden: SplitMix64 from seed 0 starts with e220a839 7b1dcdaf (its authors'
  // value), so the first draw below 10 is e220a839 * 10 >> 32 = 8.
  EXPECT_EQ(choose(10, 1, 0)[0], 8u);
  EXPECT_EQ(choose(1000, 3, 1), choose(1000, 3, 1));
  EXPECT_NE(choose(1000, 3, 1), choose(1000, 3, 2));
}

TEST(Choose, FewerAreThePrefixOfMore) {
  auto more = choose(100, 40, 3);
  more.resize(10);
  EXPECT_EQ(choose(100, 10, 3), more);
}

TEST(Choose, IsTheStartOfAShuffleOfTheWholeList) {
  // Choosing all is a whole shuffle, whose every step swaps two of the list.
  for (const size_t count : {size_t{1}, size_t{2}, size_t{500}}) {
    auto all = choose(count, count, 11);
    auto sorted = all;
    std::sort(sorted.begin(), sorted.end());
    for (size_t i = 0; i < count; ++i) {
      EXPECT_EQ(sorted[i], i);
    }
  }
  // Far fewer than there are, of more than memory would hold.
  EXPECT_EQ(choose(size_t{1} << 31, 4, 11).size(), 4u);
}

TEST(Choose, IsUniform) {
  // First pick of 8, over 8000 seeds: mean 1000 each, standard deviation
  // sqrt(8000 * 1/8 * 7/8) = 29.6; six of them.
  std::vector<int> counts(8);
  for (uint64_t seed = 0; seed < 8000; ++seed) {
    ++counts[choose(8, 1, seed)[0]];
  }
  for (int count : counts) {
    EXPECT_NEAR(count, 1000, 178);
  }
}

}  // namespace
}  // namespace pennyweight
