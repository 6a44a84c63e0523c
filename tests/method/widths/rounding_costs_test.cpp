#include "method/widths/rounding_costs.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "core/json.h"
#include "method/learned/rounding_loss.h"
#include "ops/rounding/quantize.h"
#include "support/expect_error.h"
#include "support/rounded_alone.h"
#include "support/tiny_model.h"

namespace pennyweight {

namespace {

using testing::expect_error;
using testing::RoundedAlone;
using testing::tiny_config;
using testing::TinyModel;
using Sequences = std::vector<std::vector<int32_t>>;

Json config(const std::string& family = "llama") {
  auto config = tiny_config(family);
  config["hidden_size"] = 64;
  config["intermediate_size"] = 128;
  config["head_dim"] = 16;
  return config;
}

Sequences random_sequences(size_t count, size_t length) {
  std::mt19937 random(1);
  Sequences sequences(count);
  for (auto& sequence : sequences) {
    for (size_t i = 0; i < length; ++i) {
      sequence.push_back(int32_t(random() % 61));
    }
    --length;  // padding
  }
  return sequences;
}

CostSettings settings_of(const std::string& candidates) {
  CostSettings settings;
  settings.candidates = parse_candidates(candidates);
  settings.scratch_folder = fs::temp_directory_path();
  settings.batch_tokens = 256;
  return settings;
}

// Rounding to nearest at 6 bits is a small change that knows nothing of the
// gradient. The estimate is a mean over 2,000 tokens of squares, each module's
// within some tenths, and takes tokens' and rows' shares of g^2 as independent;
// all modules together are closer.
TEST(RoundingCosts, AreTheKlOfSmallChanges) {
  mx::set_default_device(mx::Device::cpu);
  const TinyModel tiny(config());
  const auto sequences = random_sequences(40, 62);
  auto settings = settings_of("6:32");
  settings.gptq_bits = {};
  const auto costs = measure_costs(tiny.model, sequences, settings, {});
  const RoundedAlone alone(tiny.model, sequences, 256);
  double estimated = 0, measured = 0;
  const auto modules = list_stored_modules(tiny.model.spec);
  ASSERT_EQ(costs.modules.size(), modules.size());
  for (size_t i = 0; i < modules.size(); ++i) {
    EXPECT_EQ(costs.modules[i].path, modules[i].path);
    EXPECT_EQ(costs.modules[i].parameters, modules[i].in * modules[i].out);
    if (modules[i].block < 0) {
      continue;
    }
    const auto weight =
        *load_linear(tiny.model, modules[i].path, mx::float32).dense;
    const double kl = alone.kl(
        modules[i].block,
        {{modules[i].path,
          ops::dequantize(
              quantize(weight, *settings.candidates[0]), mx::float32)}});
    const double cost = costs.modules[i].losses[0];
    RecordProperty(modules[i].path, std::to_string(cost / kl));
    EXPECT_GT(cost, kl / 2) << modules[i].path;
    EXPECT_LT(cost, kl * 2) << modules[i].path;
    estimated += cost;
    measured += kl;
  }
  EXPECT_NEAR(estimated / measured, 1, 0.2);
}

bool same(const RoundingCosts& a, const RoundingCosts& b) {
  return to_json(a) == to_json(b);
}

TEST(RoundingCosts, AreTheSameAgainAndFromTheScratchFile) {
  mx::set_default_device(mx::Device::cpu);
  const TinyModel tiny(config());
  const auto sequences = random_sequences(6, 40);
  auto settings = settings_of("2:64,4:32,8:64,bf16");
  const auto costs = measure_costs(tiny.model, sequences, settings, {});
  EXPECT_TRUE(same(costs, measure_costs(tiny.model, sequences, settings, {})));
  settings.activation_bytes = 0;
  EXPECT_TRUE(same(costs, measure_costs(tiny.model, sequences, settings, {})));
  settings.seed = 1;
  EXPECT_FALSE(same(costs, measure_costs(tiny.model, sequences, settings, {})));
  for (const auto& module : costs.modules) {
    EXPECT_GT(module.losses[0], module.losses[1]) << module.path;
    EXPECT_GT(module.losses[1], module.losses[2]) << module.path;
    EXPECT_GT(module.losses[2], 0) << module.path;
    EXPECT_EQ(module.losses[3], 0) << module.path;
  }
}

TEST(RoundingCosts, OfAnUntiedHeadAndOfExperts) {
  mx::set_default_device(mx::Device::cpu);
  auto experts = config("qwen3_moe");
  experts.update(Json{
      {"tie_word_embeddings", false},
      {"num_experts", 4},
      {"num_experts_per_tok", 2},
      {"moe_intermediate_size", 64},
      {"decoder_sparse_step", 1},
      {"mlp_only_layers", Json::array()},
      {"norm_topk_prob", true}});
  const TinyModel tiny(experts);
  const auto costs = measure_costs(
      tiny.model, random_sequences(6, 40), settings_of("3:64,6:64"), {});
  const auto modules = list_stored_modules(tiny.model.spec);
  ASSERT_EQ(costs.modules.size(), modules.size());
  for (size_t i = 0; i < modules.size(); ++i) {
    const auto& own = costs.modules[i];
    EXPECT_EQ(
        own.parameters,
        modules[i].in * modules[i].out * std::max<int64_t>(1, modules[i].count))
        << own.path;
    EXPECT_GT(own.losses[0], own.losses[1]) << own.path;
    EXPECT_GT(own.losses[1], 0) << own.path;
  }
}

TEST(RoundingCosts, GoToJsonAndBack) {
  const RoundingCosts costs{
      parse_candidates("2:64,bf16"),
      {{"a.b", 12, {0.1, 0}},
       {"c", 7, {std::numeric_limits<double>::quiet_NaN(), 0}}},
      99};
  const auto json = parse_json(to_json(costs).dump(), "x.json");
  const auto read = costs_from_json(json, "x.json");
  EXPECT_EQ(read.candidates, costs.candidates);
  EXPECT_EQ(read.tokens, 99);
  ASSERT_EQ(read.modules.size(), 2u);
  EXPECT_EQ(read.modules[0].path, "a.b");
  EXPECT_EQ(read.modules[0].parameters, 12);
  EXPECT_EQ(read.modules[0].losses, costs.modules[0].losses);
  EXPECT_TRUE(std::isnan(read.modules[1].losses[0]));
  for (const auto* text :
       {"[]",
        "{}",
        R"({"tokens": -1})",
        R"({"tokens": 1, "candidates": [], "modules": [{}]})",
        R"({"tokens": 1, "candidates": [null], "modules":
            [{"path": "a", "parameters": 1, "losses": []}]})",
        R"({"tokens": 1, "candidates": [null], "modules":
            [{"path": "a", "parameters": 1, "losses": ["x"]}]})"}) {
    expect_error(ErrorCode::corrupt, "x.json", [&] {
      costs_from_json(parse_json(text, "x.json"), "x.json");
    });
  }
}

TEST(RoundingCosts, NameWeightsThatAreNotFinite) {
  mx::set_default_device(mx::Device::cpu);
  for (const char* name :
       {"model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight"}) {
    auto tensors = testing::random_tensors(config());
    auto& weight = tensors.at(name);
    weight =
        mx::where(mx::equal(weight, mx::max(weight)), mx::array(NAN), weight);
    weight.eval();
    const TinyModel tiny(config(), tensors);
    expect_error(ErrorCode::numeric, name, [&] {
      measure_costs(tiny.model, random_sequences(2, 9), settings_of("4"), {});
    });
  }
}

}  // namespace

}  // namespace pennyweight
