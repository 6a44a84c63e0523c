#include "eval/float16_range.h"

#include <gtest/gtest.h>
#include <mlx/ops.h>

#include "eval/evaluate.h"
#include "support/expect_error.h"
#include "support/tiny_model.h"

namespace pennyweight {
namespace {

using testing::expect_error;
using testing::random_tensors;
using testing::Tensors;
using testing::tiny_config;
using testing::TinyModel;

Tensors cast(Tensors tensors, mx::Dtype dtype) {
  for (auto& [name, tensor] : tensors) {
    tensor = mx::astype(tensor, dtype);
  }
  return tensors;
}

// Tensors of a float16 model, some multiplied.
Tensors with(const std::map<std::string, float>& times, mx::Dtype dtype) {
  auto tensors = random_tensors(tiny_config());
  for (const auto& [name, factor] : times) {
    auto& tensor = tensors.at(name);
    tensor = mx::multiply(tensor, mx::array(factor));
  }
  return cast(std::move(tensors), dtype);
}

const std::vector<int32_t> kTokens{3, 17, 42, 8, 8, 60, 1, 29, 30, 31};

void run(const Model& model, bool fails, std::optional<mx::Dtype> dtype = {}) {
  EvalSettings settings;
  settings.dtype = dtype;
  settings.float16_overflow_fails = fails;
  evaluate(model, nullptr, {{kTokens}}, settings);
}

struct Case {
  std::map<std::string, float> times;
  std::string place;
};

const std::string kBlock = "model.layers.1.";
const std::vector<Case> kCases{
    {{{kBlock + "mlp.down_proj.weight", 30000}},
     "the output of model.layers.1.mlp.down_proj"},
    {{{kBlock + "mlp.gate_proj.weight", 3000},
      {kBlock + "mlp.up_proj.weight", 3000}},
     "the input of model.layers.1.mlp.down_proj"},
    {{{kBlock + "self_attn.q_proj.weight", 3000},
      {kBlock + "self_attn.k_proj.weight", 3000}},
     "the attention scores before model.layers.1.self_attn.o_proj"},
    {{{"model.norm.weight", 8000}}, "the logits of model.embed_tokens"},
    {{{"model.norm.weight", 30000}}, "the output of model.norm"}};

TEST(Float16Range, AnOverflowIsRefusedByName) {
  for (const auto& [times, place] : kCases) {
    const TinyModel tiny(tiny_config(), with(times, mx::float16));
    EXPECT_TRUE(runs_in_float16(tiny.model));
    expect_error(ErrorCode::numeric, place, [&] { run(tiny.model, true); });
    run(tiny.model, true, mx::float32);
  }
}

TEST(Float16Range, PeaksOfAnotherTypeNameTheSame) {
  for (const auto& [times, place] : kCases) {
    const TinyModel tiny(tiny_config(), with(times, mx::bfloat16));
    EXPECT_FALSE(runs_in_float16(tiny.model));
    const auto peaks = float16_peaks(tiny.model, kTokens);
    EXPECT_EQ(peaks.parts.size(), tiny.model.spec.blocks.size() + 2);
    ASSERT_FALSE(peaks.overflows.empty()) << place;
    EXPECT_EQ(peaks.overflows.front().place, place);
    EXPECT_GT(peaks.overflows.front().largest, kLargestFloat16);
    // bfloat16 holds them all; asked to run it in float16, it does not.
    run(tiny.model, true);
    expect_error(
        ErrorCode::numeric, place, [&] { run(tiny.model, true, mx::float16); });
  }
}

TEST(Float16Range, ModelsWithinItAreAsBefore) {
  const TinyModel tiny(tiny_config(), with({}, mx::float16));
  const auto figures = [&](bool fails) {
    EvalSettings settings;
    settings.float16_overflow_fails = fails;
    return evaluate(tiny.model, nullptr, {{kTokens}}, settings)
        .perplexity.value;
  };
  EXPECT_NEAR(figures(true) / figures(false), 1, 1e-5);
  EXPECT_TRUE(float16_peaks(tiny.model, kTokens).overflows.empty());
}

TEST(Float16Range, OneWiderTensorMakesWhatIsBehindItWider) {
  auto tensors = with({}, mx::float16);
  auto& norm = tensors.at(kBlock + "input_layernorm.weight");
  norm = mx::astype(norm, mx::float32);
  const TinyModel tiny(tiny_config(), tensors);
  EXPECT_EQ(tiny.model.dtype, mx::float16);
  EXPECT_FALSE(runs_in_float16(tiny.model));
}

}  // namespace
}  // namespace pennyweight
