// A method's own work while the full-precision stream goes on.

#include <gtest/gtest.h>
#include <mlx/transforms.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

#include "method/gptq/method.h"
#include "method/plan_modules.h"
#include "run/block_task.h"
#include "support/expect_error.h"
#include "support/padded_sequences.h"
#include "support/tiny_model.h"

namespace pennyweight {
namespace {

using testing::difference;
using testing::expect_error;
using testing::TemporaryFolder;
using testing::tiny_config;
using testing::TinyModel;

Json narrow_config(const std::string& family) {
  Json config = tiny_config(family);
  config.update(
      {{"hidden_size", 64},
       {"intermediate_size", 128},
       {"head_dim", 16},
       {"moe_intermediate_size", 64},
       {"num_experts", 16},
       {"num_experts_per_tok", 4},
       {"decoder_sparse_step", 1},
       {"mlp_only_layers", Json::array()},
       {"norm_topk_prob", true}});
  return config;
}

std::vector<std::vector<int32_t>> make_sequences() {
  std::vector<std::vector<int32_t>> sequences;
  for (int32_t i = 0; i < 12; ++i) {
    auto& own = sequences.emplace_back();
    for (int32_t j = 0; j < 9 + i % 3; ++j) {
      own.push_back((7 * i + 5 * j + i * j) % 61);
    }
  }
  return sequences;
}

/// Two streams at the model's first block.
struct TwoStreams {
  TinyModel tiny;
  TemporaryFolder scratch;
  ProcessGroup alone;
  ProgressFn silent;
  MemoryBudget budget{4000};  // some of the states lie in the scratch file
  QuantPlan plan = plan_modules(tiny.model, spec(), spec(), spec());
  std::vector<TokenBatch> batches =
      make_token_batches(make_sequences(), tiny.model.spec.vocab, 24);
  BlockStream full{batches, settings(), budget};
  BlockStream quantized{batches, settings(), budget};

  explicit TwoStreams(const std::string& family = "llama")
      : tiny(narrow_config(family)) {
    mx::set_default_device(mx::Device::cpu);
    const auto tables = load_embedding_and_head(tiny.model, mx::float32);
    full.embed(tables);
    quantized.embed(tables);
  }
  static QuantSpec spec() {
    return make_quant_spec("affine", 4, 64);
  }
  StreamSettings settings() const {
    return {mx::float32, scratch.path(), true};
  }
  WalkTask task(bool overlaps) {
    return WalkTask(
        {"gptq",
         tiny.model,
         plan,
         alone,
         batches,
         batches.size() - 1,
         true,
         full,
         &quantized,
         silent,
         overlaps},
        tiny.model.spec.blocks[0]);
  }
};

bool equal_bytes(const mx::array& a, const mx::array& b) {
  return a.nbytes() == b.nbytes() &&
      std::memcmp(a.data<char>(), b.data<char>(), a.nbytes()) == 0;
}

struct Made {
  PackedBlock packed;
  Json figures;
  std::vector<mx::array> full, quantized;  // the streams behind the block
};

Made make(const std::string& family, bool overlaps) {
  TwoStreams streams(family);
  auto task = streams.task(overlaps);
  GptqMethod method{GptqOptions{}};
  Made made;
  made.figures = to_json(method.run(task));
  task.finish();
  made.packed = task.packed();
  for (size_t i = 0; i < streams.batches.size(); ++i) {
    made.full.push_back(streams.full.start(i));
    made.quantized.push_back(streams.quantized.start(i));
  }
  return made;
}

// Nothing that is computed depends on what ran at the same time.
TEST(Overlap, MakesTheSameBlock) {
  for (const char* family : {"llama", "qwen3_moe"}) {
    const auto one = make(family, false);
    const auto other = make(family, true);
    EXPECT_EQ(one.figures, other.figures) << family;
    EXPECT_GE(one.packed.size(), 7u) << family;
    ASSERT_EQ(one.packed.size(), other.packed.size()) << family;
    for (const auto& [path, weight] : one.packed) {
      EXPECT_TRUE(equal_bytes(weight.codes, other.packed.at(path).codes))
          << path;
      EXPECT_TRUE(equal_bytes(weight.scales, other.packed.at(path).scales))
          << path;
    }
    for (size_t i = 0; i < one.full.size(); ++i) {
      EXPECT_EQ(difference(one.full[i], other.full[i]), 0) << family;
      EXPECT_EQ(difference(one.quantized[i], other.quantized[i]), 0) << family;
    }
  }
}

/// Whether the full stream has what the module reads of the last batch.
bool has_come(TwoStreams& streams, const ModuleSpec& module) {
  try {
    mx::eval(streams.full.input(module, streams.batches.size() - 1));
    return true;
  } catch (const Error&) {
    return false;  // an empty slot
  }
}

void wait_a_second() {
  std::this_thread::sleep_for(std::chrono::seconds(1));
}

TEST(Overlap, TakesTheFullStreamToTheNextGroupAndNoFurther) {
  TwoStreams streams;
  auto task = streams.task(true);
  const auto& groups = task.groups();
  ASSERT_EQ(groups.size(), 4u);  // q k v, o, gate up, down
  task.statistics(groups[0], {.shifts = true});
  const auto& o = groups[1].modules.front();
  const auto& down = groups[3].modules.front();
  EXPECT_FALSE(has_come(streams, o));
  std::atomic<bool> elsewhere = false;
  const auto here = std::this_thread::get_id();
  task.overlap([&] {
    wait_a_second();
    elsewhere = std::this_thread::get_id() != here;
  });
  EXPECT_TRUE(elsewhere);
  EXPECT_TRUE(has_come(streams, o));
  EXPECT_FALSE(has_come(streams, down));
  task.statistics(groups[1], {.shifts = true});
  task.statistics(groups[2], {.shifts = true});
  task.overlap(wait_a_second);
  EXPECT_TRUE(has_come(streams, down));
}

TEST(Overlap, WorkIsCalledInPlaceWhereKernelsRunOnTheSameCores) {
  TwoStreams streams;
  auto task = streams.task(false);
  task.statistics(task.groups()[0], {.shifts = true});
  const auto here = std::this_thread::get_id();
  task.overlap([&] { EXPECT_EQ(std::this_thread::get_id(), here); });
  EXPECT_FALSE(has_come(streams, task.groups()[1].modules.front()));
}

TEST(Overlap, PassesOnWhatTheWorkThrows) {
  TwoStreams streams;
  auto task = streams.task(true);
  task.statistics(task.groups()[0], {.shifts = true});
  expect_error(ErrorCode::numeric, "of the work", [&] {
    task.overlap(
        [] { throw Error(ErrorCode::numeric, "gptq", "of the work"); });
  });
  // The streams can go on.
  EXPECT_GT(task.statistics(task.groups()[1], {.shifts = true}).tokens, 0);
}

// A stream that was taken on in pieces is where one that ran through is.
TEST(Overlap, AStreamGoesOnFromWhereItCame) {
  TwoStreams streams;
  const auto& block = streams.tiny.model.spec.blocks[0];
  const auto weights = load_block(streams.tiny.model, 0, mx::float32);
  streams.full.enter(block, weights);
  streams.quantized.enter(block, weights);
  StreamWalk pieces(streams.full, streams.batches.size());
  pieces.advance();
  for (size_t i = 0; i < streams.batches.size(); ++i) {
    pieces.pass(0, i);  // the first has passed it
  }
  EXPECT_EQ(pieces.next(), 1u);
  pieces.advance();
  pieces.move_to(2);
  EXPECT_EQ(pieces.next(), 2u);
  pieces.pass(1, 0);
  EXPECT_EQ(pieces.next(), 2u);
  pieces.advance();
  pieces.complete();
  EXPECT_TRUE(pieces.at_end());
  StreamWalk whole(streams.quantized, streams.batches.size());
  whole.complete();
  for (size_t i = 0; i < streams.batches.size(); ++i) {
    EXPECT_EQ(
        difference(streams.full.output(i), streams.quantized.output(i)), 0);
  }
}

}  // namespace
}  // namespace pennyweight
