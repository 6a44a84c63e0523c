#include "pass/sample.h"

#include <gtest/gtest.h>
#include <mlx/ops.h>

#include "model/decoder.h"
#include "support/expect_error.h"
#include "support/logits.h"
#include "support/tiny_model.h"

namespace pennyweight {
namespace {

using testing::tiny_config;
using testing::TinyModel;

TEST(Sample, ShapeSeedAndRange) {
  TinyModel tiny(tiny_config());
  SampleSettings settings;
  settings.batch = 3;
  auto first = sample_sequences(tiny.model, 7, 9, 5, settings);
  ASSERT_EQ(first.size(), 7u);
  for (const auto& sequence : first) {
    ASSERT_EQ(sequence.size(), 9u);
    for (int32_t token : sequence) {
      EXPECT_GE(token, 0);
      EXPECT_LT(token, 61);
    }
  }
  EXPECT_EQ(sample_sequences(tiny.model, 7, 9, 5, settings), first);
  EXPECT_NE(sample_sequences(tiny.model, 7, 9, 6, settings), first);
}

TEST(Sample, GreedyFollowsTheLogits) {
  TinyModel tiny(tiny_config());
  SampleSettings settings;
  settings.temperature = 0;
  settings.bos = 4;
  auto sequences = sample_sequences(tiny.model, 2, 10, 1, settings);
  EXPECT_EQ(sequences[0], sequences[1]);
  EXPECT_EQ(sequences[0][0], 4);
  mx::array tokens(sequences[0].begin(), {1, 10}, mx::int32);
  auto best = mx::astype(
      mx::argmax(testing::logits(tiny.model, tokens, mx::float32), -1),
      mx::int32);
  best.eval();
  for (int i = 0; i + 1 < 10; ++i) {
    EXPECT_EQ(sequences[0][i + 1], best.data<int32_t>()[i]);
  }
}

TEST(Sample, PromptsAreContinuedByTheLogits) {
  TinyModel tiny(tiny_config());
  const std::vector<std::vector<int32_t>> prompts{
      {4, 9, 30, 2, 17}, {60, 1, 1, 8, 40}};
  const auto fresh = continue_sequences(tiny.model, prompts, 6);
  ASSERT_EQ(fresh.size(), 2u);
  for (size_t i = 0; i < prompts.size(); ++i) {
    ASSERT_EQ(fresh[i].size(), 6u);
    auto whole = prompts[i];
    whole.insert(whole.end(), fresh[i].begin(), fresh[i].end());
    mx::array tokens(whole.begin(), {1, 11}, mx::int32);
    auto best = mx::astype(
        mx::argmax(testing::logits(tiny.model, tokens, mx::float32), -1),
        mx::int32);
    best.eval();
    for (size_t k = 0; k < fresh[i].size(); ++k) {
      EXPECT_EQ(fresh[i][k], best.data<int32_t>()[k + 4]) << i << " " << k;
    }
  }
  EXPECT_NE(fresh[0], fresh[1]);
}

TEST(Sample, AnEndIsFollowedByABeginning) {
  TinyModel tiny(tiny_config());
  SampleSettings settings;
  settings.bos = 5;
  for (int32_t token = 0; token < 61; token += 2) {
    settings.ends.push_back(token);
  }
  int ends = 0;
  for (const auto& ids : sample_sequences(tiny.model, 4, 20, 1, settings)) {
    for (size_t i = 1; i + 1 < ids.size(); ++i) {
      if (ids[i] % 2 == 0) {
        EXPECT_EQ(ids[i + 1], 5);
        ++ends;
      }
    }
  }
  EXPECT_GT(ends, 0);
}

TEST(Sample, FrequenciesFollowTheProbabilities) {
  TinyModel tiny(tiny_config());
  SampleSettings settings;
  settings.bos = 4;
  settings.batch = 500;
  mx::array tokens(std::vector<int32_t>{4}.begin(), {1, 1}, mx::int32);
  auto chances =
      mx::softmax(testing::logits(tiny.model, tokens, mx::float32), -1, true);
  chances.eval();
  std::vector<int> counts(61, 0);
  const int samples = 4000;
  for (const auto& ids :
       sample_sequences(tiny.model, samples, 2, 3, settings)) {
    ++counts[ids[1]];
  }
  for (int i = 0; i < 61; ++i) {
    double p = chances.data<float>()[i];
    double deviation = std::sqrt(samples * p * (1 - p)) + 1;
    EXPECT_LT(std::abs(counts[i] - samples * p), 5 * deviation) << i;
  }
}

TEST(Sample, SenselessRequestsAreRefused) {
  TinyModel tiny(tiny_config());
  testing::expect_error(ErrorCode::invalid_argument, "positive", [&] {
    sample_sequences(tiny.model, 0, 9, 5);
  });
}

}  // namespace
}  // namespace pennyweight
