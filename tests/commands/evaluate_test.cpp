#include <gtest/gtest.h>

#include <fstream>

#include "core/json.h"
#include "eval/evaluate.h"
#include "support/expect_error.h"
#include "support/run_command.h"
#include "support/tiny_model.h"

namespace pennyweight {
namespace {

using testing::expect_error;
using testing::random_tensors;
using testing::TemporaryFolder;
using testing::tiny_config;
using testing::write_checkpoint;

// A tokenizer of the words w0 .. w60, split at spaces.
void write_tokenizer(const fs::path& folder) {
  Json vocabulary;
  for (int i = 0; i < 61; ++i) {
    vocabulary["w" + std::to_string(i)] = i;
  }
  Json tokenizer = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", Json::array()},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "WhitespaceSplit"}}},
      {"post_processor", nullptr},
      {"decoder", nullptr},
      {"model",
       {{"type", "WordLevel"}, {"vocab", vocabulary}, {"unk_token", "w0"}}}};
  std::ofstream(folder / "tokenizer.json") << tokenizer.dump();
}

struct EvaluateFixture {
  TemporaryFolder model;
  TemporaryFolder reference;
  TemporaryFolder data;
  std::vector<int32_t> ids;
  Json options;

  EvaluateFixture() {
    write_checkpoint(
        model.path(), tiny_config(), random_tensors(tiny_config(), 1));
    write_checkpoint(
        reference.path(), tiny_config(), random_tensors(tiny_config(), 2));
    write_tokenizer(model.path());
    write_tokenizer(reference.path());
    std::ofstream text(data.path() / "text.txt");
    for (int i = 0; i < 64; ++i) {
      ids.push_back((i * 17 + i * i) % 61);
      text << "w" << ids.back() << " ";
    }
    text.close();
    options = {
        {"model", model.path().string()},
        {"data-path", (data.path() / "text.txt").string()},
        {"sequence-length", 16},
        {"num-samples", -1}};
  }

  Json run(bool with_reference) const {
    auto all = options;
    if (with_reference) {
      all["reference"] = reference.path().string();
    }
    return testing::run_command(evaluate_command(), all);
  }
};

TEST(EvaluateModel, ScoresTheTextsTokens) {
  EvaluateFixture fixture;
  auto report = fixture.run(true);
  std::vector<ScoredSequence> sequences;
  for (size_t i = 0; i < fixture.ids.size(); i += 16) {
    sequences.push_back({std::span(fixture.ids).subspan(i, 16)});
  }
  auto model = open_model(fixture.model.path());
  auto reference = open_model(fixture.reference.path());
  auto expected = evaluate(model, &reference, sequences);
  EXPECT_EQ(report["tokens"], 4 * 15);
  EXPECT_NEAR(
      report["perplexity"].get<double>(), expected.perplexity.value, 1e-3);
  EXPECT_NEAR(
      report["kl"]["mean"].get<double>(),
      expected.reference->kl.mean.value,
      1e-5);
  EXPECT_DOUBLE_EQ(report["bits_per_weight"].get<double>(), 32);
  EXPECT_EQ(report["dtype"], "float32");
}

TEST(EvaluateModel, JsonHoldsTheFigures) {
  EvaluateFixture fixture;
  const auto json = fixture.run(true);
  EXPECT_GT(json.at("perplexity").get<double>(), 1);
  EXPECT_GT(json.at("kl").at("mean").get<double>(), 0);
  EXPECT_GE(json.at("kl").at("p99"), json.at("kl").at("median"));
  EXPECT_LE(json.at("top1").at("mean").get<double>(), 1);
  const auto alone = fixture.run(false);
  EXPECT_FALSE(alone.contains("kl"));
}

TEST(EvaluateModel, SelfNeedsNothingButTheModel) {
  EvaluateFixture fixture;
  fixture.options["data-path"] = "self";
  fixture.options["num-samples"] = 3;
  auto report = fixture.run(false);
  EXPECT_EQ(report["tokens"], 3 * 15);
}

TEST(EvaluateModel, WrongOptionsAreRefused) {
  EvaluateFixture fixture;
  fixture.options["dtype"] = "int7";
  expect_error(
      ErrorCode::invalid_argument, "int7", [&] { fixture.run(false); });
  fixture.options.erase("dtype");
  fixture.options["batch-size"] = -1;
  expect_error(
      ErrorCode::invalid_argument, "batch-size", [&] { fixture.run(false); });
}

}  // namespace
}  // namespace pennyweight
