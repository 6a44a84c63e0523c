#include "eval/batches.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace pennyweight {
namespace {

using Ids = std::vector<int32_t>;

Ids values(mx::array array) {
  array.eval();
  return {array.data<int32_t>(), array.data<int32_t>() + array.size()};
}

TEST(Batches, EqualLengthsNeedNoPicks) {
  Ids a = {1, 2, 3};
  Ids b = {4, 5, 6};
  auto batches = make_batches({{a}, {b}}, 10, 4);
  ASSERT_EQ(batches.size(), 1u);
  EXPECT_EQ(values(batches[0].tokens), (Ids{1, 2, 4, 5}));
  EXPECT_EQ(values(batches[0].targets), (Ids{2, 3, 5, 6}));
  EXPECT_FALSE(batches[0].picks.has_value());
  EXPECT_EQ(make_batches({{a}, {b}}, 10, 3).size(), 2u);
}

TEST(Batches, RaggedAndMaskedRowsArePicked) {
  Ids a = {1, 2};
  Ids b = {3, 4, 5, 6};
  std::vector<uint8_t> mask = {1, 0, 1, 1};
  auto batches = make_batches({{a}, {b, mask}}, 10, 100);
  ASSERT_EQ(batches.size(), 1u);
  EXPECT_EQ(batches[0].tokens.shape(), (mx::Shape{2, 3}));
  EXPECT_EQ(values(batches[0].tokens), (Ids{3, 4, 5, 1, 0, 0}));
  EXPECT_EQ(values(*batches[0].picks), (Ids{1, 2, 3}));
  EXPECT_EQ(values(batches[0].targets), (Ids{5, 6, 2}));
}

TEST(Batches, SequencesWithNothingToScoreAreLeftOut) {
  Ids one = {1};
  Ids none = {};
  Ids hidden = {1, 2, 3};
  std::vector<uint8_t> mask = {1, 0, 0};
  EXPECT_TRUE(make_batches({{one}, {none}, {hidden, mask}}, 10, 8).empty());
}

TEST(Batches, ForeignTokensAreRefused) {
  Ids high = {1, 10};
  Ids low = {-1, 1};
  for (const Ids& ids : {high, low}) {
    testing::expect_error(
        ErrorCode::invalid_argument, "outside the vocabulary", [&] {
          make_batches({{ids}}, 10, 8);
        });
  }
  Ids fine = {1, 2};
  std::vector<uint8_t> mask = {1};
  testing::expect_error(ErrorCode::invalid_argument, "mask", [&] {
    make_batches({{fine, mask}}, 10, 8);
  });
}

}  // namespace
}  // namespace pennyweight
