#include "pass/distill_batches.h"

#include <gtest/gtest.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <numeric>

namespace pennyweight {

namespace {

using Indices = std::vector<size_t>;

TEST(NumpyRandom, PermutesAsNumpy) {
  // numpy.random.seed(123); permutation(10), then permutation(5).
  NumpyRandom random(123);
  EXPECT_EQ(random.permutation(10), (Indices{4, 0, 7, 5, 8, 3, 1, 6, 9, 2}));
  EXPECT_EQ(random.permutation(5), (Indices{2, 3, 4, 0, 1}));
  EXPECT_EQ(NumpyRandom(0).permutation(1), Indices{0});
  EXPECT_TRUE(NumpyRandom(0).permutation(0).empty());
}

TEST(DistillBatches, AreSortedCutAndPadded) {
  const auto batches = distill_batches({70, 5, 33, 64, 2, 9, 40}, 2, 65, 123);
  // Sorted: 4, 1, 5, 2, 6, 3, 0; the last fills no batch.
  ASSERT_EQ(batches.size(), 3u);
  Indices seen;
  for (const auto& batch : batches) {
    ASSERT_EQ(batch.sequences.size(), 2u);
    seen.insert(seen.end(), batch.sequences.begin(), batch.sequences.end());
    // One token behind a multiple of 32, at most 65 in all.
    const size_t longest = batch.sequences.back();
    EXPECT_EQ(batch.positions, longest == 1 ? 32 : 64) << longest;
  }
  std::ranges::sort(seen);
  EXPECT_EQ(seen, (Indices{1, 2, 3, 4, 5, 6}));
}

TEST(DistillBatches, FewerSequencesThanABatch) {
  const auto batches = distill_batches({9, 7, 8}, 4, 65, 1);
  ASSERT_EQ(batches.size(), 1u);
  EXPECT_EQ(batches[0].sequences, (Indices{1, 2, 0}));
  EXPECT_TRUE(distill_batches({}, 4, 65, 1).empty());
}

TEST(DistillBatches, PickWhatHasATokenBehind) {
  const std::vector<std::vector<int32_t>> sequences{{1, 2, 3}, {4, 5, 6, 7, 8}};
  const DistillBatch batch{{1, 0}, 4};
  const auto both = token_batch(sequences, batch, Indices{0, 1});
  EXPECT_EQ(both.count, 6);
  auto tokens = mx::contiguous(both.tokens);
  mx::eval(tokens);
  const std::vector<int32_t> wanted{4, 5, 6, 7, 1, 2, 3, 0};
  EXPECT_TRUE(std::equal(wanted.begin(), wanted.end(), tokens.data<int32_t>()));
  ASSERT_TRUE(both.picks);
  auto picks = *both.picks;
  mx::eval(picks);
  const std::vector<int32_t> picked{0, 1, 2, 3, 4, 5};
  EXPECT_TRUE(std::equal(picked.begin(), picked.end(), picks.data<int32_t>()));
  EXPECT_FALSE(token_batch(sequences, batch, Indices{0}).picks);
}

}  // namespace

}  // namespace pennyweight
