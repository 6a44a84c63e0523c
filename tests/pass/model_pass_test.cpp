#include "pass/model_pass.h"

#include <gtest/gtest.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "model/gradients.h"
#include "support/padded_sequences.h"
#include "support/tiny_model.h"

namespace pennyweight {
namespace {

using testing::difference;
using testing::kPaddedSequences;
using testing::TemporaryFolder;
using testing::tiny_config;
using testing::TinyModel;

// Of float32, through some twenty ops.
constexpr float kClose = 1e-5f;

struct PassFixture {
  TinyModel tiny{tiny_config()};
  TemporaryFolder scratch;
  MemoryBudget budget;
  EmbeddingAndHead tables = load_embedding_and_head(tiny.model, mx::float32);

  /// With no bytes all states lie in the scratch file.
  explicit PassFixture(int64_t bytes) : budget{bytes} {
    mx::set_default_device(mx::Device::cpu);
  }
  ModelPass pass(bool keep_inputs) {
    return {
        tiny.model,
        make_token_batches(kPaddedSequences, tiny.model.spec.vocab, 14),
        {.scratch_folder = scratch.path(), .keep_inputs = keep_inputs},
        budget};
  }
  BlockWeights block(int index) const {
    return load_block(tiny.model, index, mx::float32);
  }
  /// All blocks and the final norm as one function of the embeddings.
  mx::array rows(const TokenBatch& batch, mx::array x) const {
    for (const BlockSpec& spec : tiny.model.spec.blocks) {
      x = run_block(spec, block(spec.index), x, {});
    }
    return pick_tokens(
        batch, final_norm(tiny.model.spec, tables, x, mx::float32));
  }
};

class ModelPasses : public ::testing::TestWithParam<int64_t> {};

TEST_P(ModelPasses, GoesForwardAsTheWholeModelDoes) {
  for (const bool keep : {false, true}) {
    PassFixture fixture(GetParam());
    auto pass = fixture.pass(keep);
    EXPECT_EQ(pass.tokens(), 22);
    pass.embed(&fixture.tables);
    std::vector<int> seen;
    pass.forward({}, {}, [&](const BlockSpec& spec, size_t i, auto&, auto& y) {
      EXPECT_EQ(difference(y, pass.state(i)), 0);
      seen.push_back(spec.index);
    });
    EXPECT_EQ(seen, (std::vector<int>{0, 0, 1, 1}));
    for (size_t i = 0; i < pass.batches().size(); ++i) {
      const auto& batch = pass.batches()[i];
      const auto wanted =
          fixture.rows(batch, embed(fixture.tables, batch.tokens));
      EXPECT_EQ(wanted.shape(0), batch.count);
      EXPECT_LT(difference(pass.head_rows(fixture.tables, i), wanted), kClose);
    }
  }
}

TEST_P(ModelPasses, GoesBackAsTheWholeModelDoes) {
  PassFixture fixture(GetParam());
  auto pass = fixture.pass(true);
  const auto loss = [](const mx::array& rows) {
    return mx::sum(mx::square(mx::sin(rows)));
  };
  pass.embed(&fixture.tables);
  pass.forward();
  for (size_t i = 0; i < pass.batches().size(); ++i) {
    const auto rows = pass.head_rows(fixture.tables, i);
    pass.head_back(fixture.tables, i, mx::grad(loss)(rows));
  }
  pass.backward([&](const BlockSpec& spec) {
    const auto weights = pass.load(spec);
    pass.back(spec, [&](size_t, const mx::array& x, const mx::array& dy) {
      return block_gradients(spec, weights, {}, x, dy, pass.context()).x;
    });
  });
  for (size_t i = 0; i < pass.batches().size(); ++i) {
    const auto& batch = pass.batches()[i];
    const auto whole = [&](const mx::array& x) {
      return loss(fixture.rows(batch, x));
    };
    const auto wanted = mx::grad(whole)(embed(fixture.tables, batch.tokens));
    EXPECT_GT(mx::max(mx::abs(wanted)).item<float>(), 0.01f);
    EXPECT_LT(difference(pass.gradient(i), wanted), 10 * kClose);
  }
}

TEST_P(ModelPasses, TakesBatchesOneByOne) {
  PassFixture fixture(GetParam());
  auto together = fixture.pass(true);
  together.embed(&fixture.tables);
  together.forward();
  auto apart = fixture.pass(true);
  for (size_t i = apart.batches().size(); i-- > 0;) {
    apart.embed(&fixture.tables, {i, i + 1});
    apart.forward({}, {i, i + 1});
  }
  for (size_t i = 0; i < apart.batches().size(); ++i) {
    EXPECT_EQ(difference(apart.state(i), together.state(i)), 0);
    EXPECT_EQ(difference(apart.input(1, i), together.input(1, i)), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(
    States,
    ModelPasses,
    ::testing::Values(0, int64_t{1} << 30),
    [](const auto& info) { return info.param ? "memory" : "scratch"; });

TEST(ModelPass, NamesWeightsThatAreNotFinite) {
  auto tensors = testing::random_tensors(tiny_config());
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  tensors.insert_or_assign(
      name,
      mx::full(
          tensors.at(name).shape(), std::numeric_limits<float>::infinity()));
  TinyModel tiny(tiny_config(), tensors);
  auto all = MemoryBudget::unlimited();
  const auto tables = load_embedding_and_head(tiny.model, mx::float32);
  ModelPass pass(
      tiny.model, make_token_batches(kPaddedSequences, 61, 14), {}, all);
  pass.embed(&tables);
  try {
    pass.forward();
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::numeric);
    EXPECT_NE(
        std::string(error.what()).find("layers.1.mlp.up"), std::string::npos);
  }
}

}  // namespace
}  // namespace pennyweight
