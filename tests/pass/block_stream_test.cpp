#include "pass/block_stream.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "pass/statistics.h"
#include "support/expect_error.h"
#include "support/padded_sequences.h"
#include "support/tiny_model.h"

namespace pennyweight {
namespace {

using testing::difference;
using testing::expect_error;
using testing::kPaddedSequences;
using testing::TemporaryFolder;
using testing::tiny_config;
using testing::TinyModel;

struct Fixture {
  TinyModel tiny{tiny_config()};
  TemporaryFolder scratch;
  std::vector<TokenBatch> batches =
      make_token_batches(kPaddedSequences, tiny.model.spec.vocab, 14);
  MemoryBudget budget;
  EmbeddingAndHead tables = load_embedding_and_head(tiny.model, mx::float32);
  BlockWeights weights = load_block(tiny.model, 0, mx::float32);

  explicit Fixture(int64_t bytes) : budget{bytes} {
    mx::set_default_device(mx::Device::cpu);
  }
  const BlockSpec& block() const {
    return tiny.model.spec.blocks[0];
  }
  std::unique_ptr<BlockStream> stream(bool keep_start) {
    auto made = std::make_unique<BlockStream>(
        batches,
        StreamSettings{mx::float32, scratch.path(), keep_start},
        budget);
    made->embed(tables);
    made->enter(block(), weights);
    return made;
  }
};

TEST(TokenBatches, PadsOnTheRightAndPicksTokens) {
  Fixture fixture(0);
  // 7 and 7; 5 and 3 padded to 5.
  ASSERT_EQ(fixture.batches.size(), 2u);
  EXPECT_FALSE(fixture.batches[0].picks.has_value());
  EXPECT_EQ(fixture.batches[0].count, 14);
  EXPECT_EQ(fixture.batches[1].count, 8);
  auto x = mx::expand_dims(fixture.batches[1].tokens, 2);
  auto picked = mx::flatten(pick_tokens(fixture.batches[1], x));
  std::vector<int32_t> expected{11, 12, 13, 14, 15, 9, 8, 7};
  ASSERT_EQ(picked.size(), expected.size());
  EXPECT_TRUE(
      mx::array_equal(picked, mx::array(expected.data(), {8})).item<bool>());
}

TEST(TokenBatches, RefusesWhatIsNoToken) {
  expect_error(ErrorCode::invalid_argument, "vocabulary of 61", [] {
    make_token_batches({{1, 61}}, 61, 8);
  });
  expect_error(ErrorCode::invalid_argument, "empty", [] {
    make_token_batches({{}}, 61, 8);
  });
}

class Streams : public ::testing::TestWithParam<int64_t> {};

// With all in memory, some, and all in the scratch file.
TEST_P(Streams, StepByStepEqualsTheWholeBlock) {
  Fixture fixture(GetParam());
  auto stream = fixture.stream(true);
  auto in_place = fixture.stream(false);
  const auto steps = block_steps(fixture.block());
  ASSERT_EQ(steps.size(), 4u);
  for (size_t step = 0; step < steps.size(); ++step) {
    for (size_t i = 0; i < fixture.batches.size(); ++i) {
      stream->advance(step, i);
      in_place->advance(step, i);
      for (const auto& module : list_modules(fixture.block())) {
        if (module.input == steps[step].front()) {
          auto input = stream->input(module, i);
          EXPECT_EQ(difference(input, in_place->input(module, i)), 0);
        }
      }
    }
  }
  for (size_t i = 0; i < fixture.batches.size(); ++i) {
    stream->finish(i);
    in_place->finish(i);
    auto x = embed(fixture.tables, fixture.batches[i].tokens);
    EXPECT_EQ(difference(stream->start(i), x), 0);
    // Bit for bit, or a resumed run would differ.
    auto y = run_block(fixture.block(), fixture.weights, x, {});
    EXPECT_EQ(difference(stream->output(i), y), 0);
    EXPECT_EQ(difference(in_place->output(i), y), 0);
  }
  auto before = stream->output(1);
  stream->run();
  EXPECT_EQ(difference(stream->output(1), before), 0);
  stream->leave();
  EXPECT_EQ(difference(stream->start(1), before), 0);
  EXPECT_EQ(stream->scratch_bytes() > 0, GetParam() < (1 << 30));
  // The scratch file has no name that a killed process could leave.
  EXPECT_TRUE(fs::is_empty(fixture.scratch.path()));
}

INSTANTIATE_TEST_SUITE_P(
    Budgets,
    Streams,
    ::testing::Values(int64_t{0}, int64_t{3000}, int64_t{1} << 30));

TEST(Streams, BudgetIsGivenBack) {
  Fixture fixture(1 << 20);
  {
    auto stream = fixture.stream(true);
    EXPECT_LT(fixture.budget.left, 1 << 20);
  }
  EXPECT_EQ(fixture.budget.left, 1 << 20);
}

TEST(Statistics, SumsOverTokensThatAreFitted) {
  Fixture fixture(1 << 30);
  auto full = fixture.stream(false);
  auto other = fixture.weights;
  auto& q = other.linears.at(fixture.block().attention.q.path);
  q.dense = mx::multiply(*q.dense, mx::array(1.1f));
  auto stream = fixture.stream(true);
  stream->enter(fixture.block(), other);
  const auto modules = list_modules(fixture.block());
  const auto sums_at = [&](const ModuleSpec& module, size_t step) {
    return collect_statistics(
        *stream, full.get(), fixture.batches, {module, 1}, [&](size_t batch) {
          stream->advance(step, batch);
          full->advance(step, batch);
        });
  };
  sums_at(modules[0], 0);
  const auto sums = sums_at(modules[3], 1);
  EXPECT_EQ(sums.tokens, 14);
  auto x0 = embed(fixture.tables, fixture.batches[0].tokens);
  auto mixed = [&](const BlockWeights& weights) {
    auto input = attention_input(fixture.block(), weights, x0, {});
    return mx::flatten(
        attention_mixed(fixture.block(), weights, input, {}), 0, 1);
  };
  auto x = mixed(other);
  auto lost = mx::subtract(mixed(fixture.weights), x);
  auto product = [](const mx::array& a, const mx::array& b) {
    return mx::matmul(mx::transpose(a), b);
  };
  const double unit =
      14 * 0x1p-23 * mx::max(mx::abs(product(x, x))).item<float>();
  EXPECT_LE(difference(sums.hessian, product(x, x)), unit);
  EXPECT_LE(difference(*sums.input_shift, product(lost, x)), 2 * unit);
  // Both streams began with one embedding.
  EXPECT_EQ(mx::max(mx::abs(*sums.output_shift)).item<float>(), 0);
}

TEST(Statistics, LongRowsAreCutToFourTimesTheMedian) {
  const auto rows = mx::array(
      {3.0f, 4.0f, 0.0f, 5.0f, -5.0f, 0.0f, 0.0f, 0.0f, 600.0f, 800.0f},
      {5, 2});
  const auto limited = limit_rows(rows);
  const auto expected = mx::array(
      {3.0f, 4.0f, 0.0f, 5.0f, -5.0f, 0.0f, 0.0f, 0.0f, 12.0f, 16.0f}, {5, 2});
  EXPECT_LE(difference(limited, expected), 16 * 0x1p-22);
  // Without a long one, nothing is changed; nor where most are 0.
  const auto even = mx::slice(rows, {0, 0}, {3, 2});
  EXPECT_EQ(difference(limit_rows(even), even), 0);
  EXPECT_EQ(difference(limit_rows(mx::zeros({3, 2})), mx::zeros({3, 2})), 0);
  EXPECT_EQ(limit_rows(mx::astype(rows, mx::bfloat16)).dtype(), mx::bfloat16);
}

}  // namespace
}  // namespace pennyweight
