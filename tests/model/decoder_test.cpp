#include "model/decoder.h"
#include "model/scale_groups.h"

#include <gtest/gtest.h>
#include <mlx/ops.h>

#include <set>

#include "support/logits.h"
#include "support/tiny_model.h"

namespace pennyweight {
namespace {

using testing::random_tensors;
using testing::tiny_config;
using testing::TinyModel;

mx::array some_tokens(int batch, int length) {
  std::vector<int32_t> ids;
  for (int i = 0; i < batch * length; ++i) {
    ids.push_back((i * 37 + i * i) % 61);
  }
  return mx::array(ids.begin(), {batch, length}, mx::int32);
}

float largest(const mx::array& x) {
  return mx::max(mx::abs(x)).item<float>();
}

float distance(const mx::array& a, const mx::array& b) {
  return largest(mx::subtract(a, b)) / largest(b);
}

// The same float32 sums in another order, through two blocks.
constexpr float kSame = 1e-5f;

class EveryFamily : public ::testing::TestWithParam<const char*> {};

TEST_P(EveryFamily, RowsDoNotSeeEachOtherOrTheFuture) {
  TinyModel tiny(tiny_config(GetParam()));
  auto tokens = some_tokens(3, 12);
  auto all = testing::logits(tiny.model, tokens, mx::float32);
  EXPECT_EQ(all.shape(), (mx::Shape{3, 12, 61}));
  auto one = testing::logits(
      tiny.model, mx::slice(tokens, {1, 0}, {2, 7}), mx::float32);
  EXPECT_LT(distance(one, mx::slice(all, {1, 0, 0}, {2, 7, 61})), kSame);
}

TEST_P(EveryFamily, StepsGiveWhatLinearsRead) {
  TinyModel tiny(tiny_config(GetParam()));
  const auto& spec = tiny.model.spec.blocks[1];
  auto weights = load_block(tiny.model, 1, mx::float32);
  auto x = embed(
      load_embedding_and_head(tiny.model, mx::float32), some_tokens(2, 5));
  auto input = attention_input(spec, weights, x, {});
  auto mixed = attention_mixed(spec, weights, input, {});
  auto middle = weights.linears.at(spec.attention.o.path).add_to(x, mixed);
  auto wide_input = mlp_input(spec, weights, middle, {});
  auto wide = mlp_wide(*spec.mlp, weights, wide_input);
  const std::map<BlockInput, mx::array> inputs{
      {BlockInput::attention, input},
      {BlockInput::mixed, mixed},
      {BlockInput::mlp, wide_input},
      {BlockInput::wide, wide}};
  std::set<std::string> ids;
  for (const auto& module : list_modules(spec)) {
    ids.insert(module.input_id);
    EXPECT_EQ(inputs.at(module.input).shape(-1), module.in);
  }
  EXPECT_EQ(ids.size(), inputs.size());
}

TEST_P(EveryFamily, ScaleGroupsLeaveTheFunctionAsItWas) {
  auto config = tiny_config(GetParam());
  auto tensors = random_tensors(config);
  TinyModel before(config, tensors);
  auto tokens = some_tokens(2, 9);
  auto expected = testing::logits(before.model, tokens, mx::float32);
  for (const auto& group : list_scale_groups(before.model.spec.blocks[0])) {
    auto scaled = tensors;
    // 0.5 .. 1.5, equal where one channel of the previous op feeds several.
    const auto count = static_cast<int>(group.outputs);
    auto outputs = mx::add(
        mx::divide(mx::arange(count), mx::array(static_cast<float>(count))),
        mx::array(0.5f));
    auto inputs = group.from.empty()
        ? outputs
        : mx::take(
              outputs, mx::array(group.from.begin(), {int(group.channels)}));
    auto change = [&](const std::string& name, const mx::array& by) {
      scaled.insert_or_assign(name, mx::multiply(scaled.at(name), by));
    };
    auto inverse = mx::reciprocal(outputs);
    if (group.kind == ScaleGroup::Previous::norm) {
      change(group.previous + ".weight", inverse);
    } else {
      change(group.previous + ".weight", mx::expand_dims(inverse, 1));
      if (scaled.contains(group.previous + ".bias")) {
        change(group.previous + ".bias", inverse);
      }
    }
    for (const auto& linear : group.linears) {
      change(linear + ".weight", inputs);
    }
    TinyModel after(config, scaled);
    EXPECT_LT(
        distance(testing::logits(after.model, tokens, mx::float32), expected),
        kSame)
        << group.previous;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Families,
    EveryFamily,
    ::testing::Values("llama", "mistral", "qwen2", "qwen3"));

TEST(Decoder, HeadTilesMakeUpTheLogits) {
  auto config = tiny_config();
  config["tie_word_embeddings"] = false;
  TinyModel tiny(config);
  auto tables = load_embedding_and_head(tiny.model, mx::float32);
  auto x = final_norm(
      tiny.model.spec, tables, embed(tables, some_tokens(1, 6)), mx::float32);
  auto whole = head_tile(tables, x, 0, 61);
  auto parts = mx::concatenate(
      {head_tile(tables, x, 0, 20), head_tile(tables, x, 20, 41)}, -1);
  EXPECT_LT(distance(parts, whole), kSame);
}

TEST(Decoder, ExpandedAndPackedWeightsAgree) {
  auto config = tiny_config();
  auto tensors = random_tensors(config);
  config["quantization"] = {{"group_size", 32}, {"bits", 4}};
  std::string path = "model.layers.0.mlp.gate_proj";
  auto packed = mx::quantize(tensors.at(path + ".weight"), 32, 4);
  tensors.insert_or_assign(path + ".weight", packed[0]);
  tensors.insert_or_assign(path + ".scales", packed[1]);
  tensors.insert_or_assign(path + ".biases", packed[2]);
  TinyModel tiny(config, tensors);
  auto tables = load_embedding_and_head(tiny.model, mx::float32);
  auto x = embed(tables, some_tokens(2, 5));
  const auto& spec = tiny.model.spec.blocks[0];
  auto kept = load_block(tiny.model, 0, mx::float32);
  auto expanded = load_block(tiny.model, 0, mx::float32, PackedWeights::expand);
  EXPECT_TRUE(kept.linears.at(path).packed.has_value());
  EXPECT_FALSE(expanded.linears.at(path).packed.has_value());
  EXPECT_LT(
      distance(run_block(spec, kept, x, {}), run_block(spec, expanded, x, {})),
      kSame);
}

TEST(Decoder, ResidualStaysFloat32InSixteenBits) {
  TinyModel tiny(tiny_config());
  auto tables = load_embedding_and_head(tiny.model, mx::bfloat16);
  auto x = embed(tables, some_tokens(1, 4));
  ForwardContext context{.dtype = mx::bfloat16};
  auto weights = load_block(tiny.model, 0, mx::bfloat16);
  const auto& spec = tiny.model.spec.blocks[0];
  auto input = attention_input(spec, weights, x, context);
  EXPECT_EQ(input.dtype(), mx::bfloat16);
  auto y = run_block(spec, weights, x, context);
  EXPECT_EQ(y.dtype(), mx::float32);
}

}  // namespace
}  // namespace pennyweight
