#include "eval/evaluate.h"

#include <gtest/gtest.h>
#include <mlx/ops.h>

#include <cmath>
#include <limits>

#include "model/decoder.h"
#include "support/expect_error.h"
#include "support/logits.h"
#include "support/tiny_model.h"

namespace pennyweight {
namespace {

using testing::expect_error;
using testing::random_tensors;
using testing::tiny_config;
using testing::TinyModel;

std::vector<std::vector<int32_t>> some_sequences() {
  std::vector<std::vector<int32_t>> sequences;
  for (int length : {12, 12, 5, 9, 2, 12}) {
    auto& sequence = sequences.emplace_back();
    for (int i = 0; i < length; ++i) {
      sequence.push_back((i * 13 + length * 7 + i * i) % 61);
    }
  }
  return sequences;
}

std::vector<ScoredSequence> views(
    const std::vector<std::vector<int32_t>>& sequences) {
  return {sequences.begin(), sequences.end()};
}

// The figures from whole logits, in double.
struct Direct {
  std::vector<float> nll, kl, agrees;
};

std::vector<double> log_softmax(const float* row, int n) {
  double top = *std::max_element(row, row + n);
  double sum = 0;
  for (int i = 0; i < n; ++i) {
    sum += std::exp(row[i] - top);
  }
  std::vector<double> result(n);
  for (int i = 0; i < n; ++i) {
    result[i] = row[i] - top - std::log(sum);
  }
  return result;
}

Direct direct(
    const Model& model,
    const Model& reference,
    const std::vector<std::vector<int32_t>>& sequences) {
  Direct result;
  for (const auto& ids : sequences) {
    auto length = static_cast<int>(ids.size());
    mx::array tokens(ids.begin(), {1, length}, mx::int32);
    auto ours = mx::contiguous(testing::logits(model, tokens, mx::float32));
    auto theirs =
        mx::contiguous(testing::logits(reference, tokens, mx::float32));
    ours.eval();
    theirs.eval();
    int vocab = ours.shape(2);
    for (int i = 0; i + 1 < length; ++i) {
      auto p = log_softmax(theirs.data<float>() + i * vocab, vocab);
      auto q = log_softmax(ours.data<float>() + i * vocab, vocab);
      double kl = 0;
      for (int j = 0; j < vocab; ++j) {
        kl += std::exp(p[j]) * (p[j] - q[j]);
      }
      result.nll.push_back(static_cast<float>(-q[ids[i + 1]]));
      result.kl.push_back(static_cast<float>(kl));
      auto best = [](const std::vector<double>& v) {
        return std::max_element(v.begin(), v.end()) - v.begin();
      };
      result.agrees.push_back(best(p) == best(q) ? 1 : 0);
    }
  }
  return result;
}

// Logits of some 10 with float32 errors of 1e-6 relative.
constexpr double kNear = 2e-5;

TEST(Evaluate, EqualsWholeLogits) {
  TinyModel model(tiny_config(), 1);
  TinyModel reference(tiny_config("qwen3"), 2);
  auto sequences = some_sequences();
  auto expected = direct(model.model, reference.model, sequences);
  auto result = evaluate(model.model, &reference.model, views(sequences));
  EXPECT_EQ(result.sequences, 6);
  EXPECT_EQ(result.tokens, static_cast<int64_t>(expected.nll.size()));
  auto perplexity = perplexity_of(expected.nll);
  EXPECT_NEAR(result.perplexity.value / perplexity.value, 1, kNear);
  EXPECT_NEAR(
      result.perplexity.standard_error / perplexity.standard_error, 1, kNear);
  auto kl = summarize_kl(expected.kl);
  ASSERT_TRUE(result.reference.has_value());
  EXPECT_NEAR(result.reference->kl.mean.value, kl.mean.value, kNear);
  EXPECT_NEAR(result.reference->kl.median, kl.median, kNear);
  EXPECT_NEAR(result.reference->kl.p99, kl.p99, kNear);
  EXPECT_NEAR(result.reference->kl.max, kl.max, kNear);
  EXPECT_DOUBLE_EQ(
      result.reference->top1.value, mean_of(expected.agrees).value);
}

TEST(Evaluate, WavesAndBatchesDoNotMatter) {
  TinyModel model(tiny_config(), 1);
  TinyModel reference(tiny_config(), 2);
  auto sequences = some_sequences();
  auto run = [&](int64_t batch_tokens, int64_t bytes) {
    EvalSettings settings;
    settings.batch_tokens = batch_tokens;
    settings.activation_bytes = bytes;
    return evaluate(model.model, &reference.model, views(sequences), settings);
  };
  auto whole = run(0, int64_t{1} << 30);
  for (auto [tokens, bytes] : {std::pair{1, 1}, {24, 1}, {12, 6000}}) {
    auto part = run(tokens, bytes);
    EXPECT_EQ(part.tokens, whole.tokens);
    EXPECT_NEAR(part.perplexity.value / whole.perplexity.value, 1, kNear);
    EXPECT_NEAR(
        part.reference->kl.mean.value, whole.reference->kl.mean.value, kNear);
  }
}

TEST(Evaluate, AReferencesStatesServeTheNextModel) {
  TinyModel model(tiny_config(), 1);
  TinyModel other(tiny_config(), 3);
  TinyModel reference(tiny_config(), 2);
  const auto sequences = some_sequences();
  ReferenceStates states;
  const auto run = [&](const TinyModel& of, ReferenceStates* kept) {
    ProgressEvent last;
    const auto result = evaluate(
        of.model,
        &reference.model,
        views(sequences),
        {},
        [&](const ProgressEvent& event) {
          last = event;
          return true;
        },
        kept);
    EXPECT_EQ(last.done, last.total);
    return result;
  };
  run(model, &states);
  EXPECT_FALSE(states.hidden.empty());
  const auto known = run(other, &states);
  const auto anew = run(other, nullptr);
  EXPECT_EQ(known.reference->kl.mean.value, anew.reference->kl.mean.value);
  EXPECT_EQ(
      known.reference->perplexity.value, anew.reference->perplexity.value);
  EXPECT_EQ(known.reference->top1.value, anew.reference->top1.value);
  // Two waves of states are not held.
  EvalSettings small;
  small.batch_tokens = 24;
  small.activation_bytes = 1;
  ReferenceStates none;
  evaluate(model.model, &reference.model, views(sequences), small, {}, &none);
  EXPECT_TRUE(none.hidden.empty());
  expect_error(ErrorCode::invalid_argument, "of another text", [&] {
    small.activation_bytes = int64_t{1} << 30;
    small.batch_tokens = 12;
    evaluate(
        model.model, &reference.model, views(sequences), small, {}, &states);
  });
}

TEST(Evaluate, OnlyMaskedTokensCount) {
  TinyModel model(tiny_config());
  auto sequences = some_sequences();
  auto expected = direct(model.model, model.model, {sequences[0]});
  std::vector<uint8_t> mask(12, 0);
  mask[3] = mask[8] = 1;
  auto result = evaluate(model.model, nullptr, {{sequences[0], mask}});
  EXPECT_EQ(result.tokens, 2);
  double mean = (expected.nll[2] + expected.nll[7]) / 2;
  EXPECT_NEAR(result.perplexity.value / std::exp(mean), 1, kNear);
}

TEST(Evaluate, AModelIsItsOwnTwin) {
  TinyModel model(tiny_config());
  auto sequences = some_sequences();
  for (auto dtype : {mx::float32, mx::bfloat16}) {
    EvalSettings settings;
    settings.dtype = dtype;
    auto result =
        evaluate(model.model, &model.model, views(sequences), settings);
    // Equal logits on both sides: only the sums' rounding is left.
    EXPECT_LT(std::abs(result.reference->kl.max), 1e-5);
    EXPECT_EQ(result.reference->top1.value, 1);
  }
}

TEST(Evaluate, ProgressEndsAtTheTotalAndCanCancel) {
  TinyModel model(tiny_config());
  auto sequences = some_sequences();
  ProgressEvent last;
  evaluate(
      model.model,
      nullptr,
      views(sequences),
      {},
      [&](const ProgressEvent& event) {
        EXPECT_GE(event.done, last.done);
        last = event;
        return true;
      });
  EXPECT_GT(last.total, 0);
  EXPECT_EQ(last.done, last.total);
  expect_error(ErrorCode::cancelled, "stopped", [&] {
    evaluate(
        model.model, nullptr, views(sequences), {}, [](const ProgressEvent&) {
          return false;
        });
  });
}

TEST(Evaluate, VocabulariesMustMatch) {
  TinyModel model(tiny_config());
  auto config = tiny_config();
  config["vocab_size"] = 64;
  TinyModel other(config);
  expect_error(ErrorCode::invalid_argument, "vocabulary", [&] {
    evaluate(model.model, &other.model, views(some_sequences()));
  });
}

TEST(Evaluate, NonFiniteWeightsAreANumericError) {
  auto tensors = random_tensors(tiny_config());
  float nan = std::numeric_limits<float>::quiet_NaN();
  tensors.insert_or_assign(
      "model.layers.1.mlp.down_proj.weight",
      mx::full({32, 48}, nan, mx::float32));
  TinyModel model(tiny_config(), tensors);
  auto sequences = some_sequences();
  expect_error(ErrorCode::numeric, "down_proj.weight holds 1536 NaN", [&] {
    evaluate(model.model, nullptr, views(sequences));
  });
}

}  // namespace
}  // namespace pennyweight
