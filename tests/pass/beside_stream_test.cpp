// What stands beside the residual stream: keys and values that blocks share,
// and what tokens bring to each block.

#include <gtest/gtest.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "model/gradients.h"
#include "model/stream/columns.h"
#include "model/stream/token_inputs.h"
#include "pass/block_stream.h"
#include "pass/model_pass.h"
#include "support/padded_sequences.h"
#include "support/tiny_model.h"

namespace pennyweight {
namespace {

using testing::difference;
using testing::kPaddedSequences;
using testing::TemporaryFolder;
using testing::tiny_config;
using testing::TinyModel;

constexpr float kNear = 1e-5f;

// Blocks 3 and 5 read the keys of block 2, and block 4 those of block 1.
Json shared_config(int token_size) {
  auto config = tiny_config("gemma4_text");
  const std::string slides = "sliding_attention";
  const std::string full = "full_attention";
  config.update(Json{
      {"num_hidden_layers", 6},
      {"layer_types", {slides, full, slides, slides, full, slides}},
      {"global_head_dim", 16},
      {"sliding_window", 4},
      {"num_kv_shared_layers", 3},
      {"hidden_size_per_layer_input", token_size},
      {"vocab_size_per_layer_input", 61}});
  return config;
}

struct BesideFixture {
  TinyModel tiny;
  TemporaryFolder scratch;
  MemoryBudget budget;
  std::vector<TokenBatch> batches;
  EmbeddingAndHead tables;

  BesideFixture(int64_t bytes, int token_size)
      : tiny(shared_config(token_size)),
        budget{bytes},
        batches(make_token_batches(kPaddedSequences, 61, 14)),
        tables(load_embedding_and_head(tiny.model, mx::float32)) {
    mx::set_default_device(mx::Device::cpu);
  }
  const std::vector<BlockSpec>& blocks() const {
    return tiny.model.spec.blocks;
  }
  BlockWeights block(int index) const {
    return load_block(tiny.model, index, mx::float32);
  }
  /// All blocks and the final norm as one function of the embeddings; what
  /// tokens bring is no part of it.
  mx::array rows(const TokenBatch& batch, mx::array x) const {
    const auto brought = token_inputs(
        tables, batch.tokens, embed(tables, batch.tokens), mx::float32);
    for (const BlockSpec& spec : blocks()) {
      if (!brought.empty()) {
        x = with_token_input(x, brought[size_t(spec.index)]);
      }
      x = run_block(spec, block(spec.index), x, {});
    }
    return pick_tokens(
        batch, final_norm(tiny.model.spec, tables, x, mx::float32));
  }
};

TEST(SharedKeys, StandBesideTheStreamWhileTheyAreNeeded) {
  const BesideFixture fixture(0, 0);
  std::vector<std::vector<int>> reads;
  for (const BlockSpec& block : fixture.blocks()) {
    std::vector<int> own;
    for (const SharedKeys& shared : block.reads) {
      own.push_back(shared.block);
    }
    reads.push_back(own);
    const bool last = block.index == 5;
    const auto& next = fixture.blocks()[size_t(last ? 5 : block.index + 1)];
    EXPECT_EQ(given_columns(block), last ? 32 : read_columns(next));
  }
  EXPECT_EQ(
      reads, (std::vector<std::vector<int>>{{}, {}, {1}, {1, 2}, {1, 2}, {2}}));
  // Keys and values of 2 heads each, of 16 and of 8 channels.
  EXPECT_EQ(read_columns(fixture.blocks()[3]), 32 + 64 + 32);
}

class Beside : public ::testing::TestWithParam<std::tuple<int64_t, int>> {
 protected:
  BesideFixture fixture_{std::get<0>(GetParam()), std::get<1>(GetParam())};
};

TEST_P(Beside, StepByStepEqualsTheWholeBlock) {
  const StreamSettings settings{mx::float32, fixture_.scratch.path(), true};
  auto other = settings;
  other.keep_start = false;
  BlockStream kept(fixture_.batches, settings, fixture_.budget);
  BlockStream in_place(fixture_.batches, other, fixture_.budget);
  kept.embed(fixture_.tables);
  in_place.embed(fixture_.tables);
  for (const BlockSpec& block : fixture_.blocks()) {
    const auto weights = fixture_.block(block.index);
    kept.enter(block, weights);
    in_place.enter(block, weights);
    const size_t steps = block_steps(block).size();
    for (size_t step = 0; step < steps; ++step) {
      for (size_t i = 0; i < fixture_.batches.size(); ++i) {
        kept.advance(step, i);
        in_place.advance(step, i);
        for (const auto& module : list_modules(block)) {
          if (module.input == block_steps(block)[step].front()) {
            EXPECT_EQ(kept.input(module, i).shape(-1), module.in);
          }
        }
      }
    }
    for (size_t i = 0; i < fixture_.batches.size(); ++i) {
      const auto y = run_block(block, weights, kept.start(i), {});
      kept.finish(i);
      in_place.finish(i);
      EXPECT_EQ(y.shape(-1), given_columns(block));
      EXPECT_EQ(difference(kept.output(i), y), 0);
      EXPECT_EQ(difference(in_place.output(i), y), 0);
    }
    kept.leave();
    in_place.leave();
  }
}

TEST_P(Beside, PassesGoForwardAndBackAsTheWholeModelDoes) {
  const auto loss = [](const mx::array& rows) {
    return mx::sum(mx::square(mx::sin(rows)));
  };
  ModelPass pass(
      fixture_.tiny.model,
      fixture_.batches,
      {.scratch_folder = fixture_.scratch.path(), .keep_inputs = true},
      fixture_.budget);
  pass.embed(&fixture_.tables);
  pass.forward();
  for (size_t i = 0; i < fixture_.batches.size(); ++i) {
    const auto rows = pass.head_rows(fixture_.tables, i);
    pass.head_back(fixture_.tables, i, mx::grad(loss)(rows));
  }
  pass.backward([&](const BlockSpec& spec) {
    const auto weights = pass.load(spec);
    pass.back(spec, [&](size_t, const mx::array& x, const mx::array& dy) {
      EXPECT_EQ(x.shape(-1), input_columns(spec));
      EXPECT_EQ(dy.shape(-1), given_columns(spec));
      return block_gradients(spec, weights, {}, x, dy, pass.context()).x;
    });
  });
  for (size_t i = 0; i < fixture_.batches.size(); ++i) {
    const auto& batch = fixture_.batches[i];
    const auto x = embed(fixture_.tables, batch.tokens);
    EXPECT_LT(
        difference(pass.head_rows(fixture_.tables, i), fixture_.rows(batch, x)),
        kNear);
    const auto whole = [&](const mx::array& at) {
      return loss(fixture_.rows(batch, at));
    };
    const auto wanted = mx::grad(whole)(x);
    EXPECT_GT(mx::max(mx::abs(wanted)).item<float>(), 0.01f);
    EXPECT_LT(difference(pass.gradient(i), wanted), 10 * kNear);
  }
}

INSTANTIATE_TEST_SUITE_P(
    States,
    Beside,
    ::testing::Combine(
        ::testing::Values(int64_t{0}, int64_t{9000}, int64_t{1} << 30),
        ::testing::Values(0, 8)));

}  // namespace
}  // namespace pennyweight
