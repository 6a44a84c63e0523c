#include "model/names/class_names.h"
#include "model/names/check_axes.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace pennyweight {
namespace {

TEST(ClassNames, NumbersBetweenDotsMayBeAny) {
  EXPECT_EQ(
      patterns_of("h.0.x.11.w1"),
      (std::vector<std::string>{
          "h.0.x.11.w1", "h.*.x.11.w1", "h.0.x.*.w1", "h.*.x.*.w1"}));
  EXPECT_EQ(patterns_of("norm"), std::vector<std::string>{"norm"});
  EXPECT_EQ(numbers_in("h.0.x.11.w1"), (std::vector<std::string>{"0", "11"}));
  EXPECT_EQ(filled("h.*.x.*", {"3", "4"}), "h.3.x.4");
}

TEST(ClassNames, NamesThatLookLikePatternsAreNone) {
  for (const char* name : {"h.*.x", "h.#.x", "h.0.", ""}) {
    const auto found = patterns_of(name);
    EXPECT_TRUE(found.empty() || found == std::vector<std::string>{""}) << name;
  }
  // 007 is not how a layer is counted, and this is past any count.
  EXPECT_EQ(patterns_of("h.007").size(), 1);
  EXPECT_EQ(patterns_of("h.123456789012").size(), 1);
  std::string deep = "h";
  for (int i = 0; i < 200; ++i) {
    deep += ".1";
  }
  EXPECT_LE(patterns_of(deep).size(), 16);
}

TEST(ClassNames, TheTableIsReadByTypeAndArchitecture) {
  const auto mamba = find_class_names("falcon_mamba", nullptr);
  ASSERT_TRUE(mamba);
  EXPECT_EQ(mamba->name, "mamba");
  EXPECT_TRUE(mamba->not_taken.empty());
  EXPECT_TRUE(mamba->tensors.at("backbone.layers.*.mixer.conv1d.weight").thin);
  EXPECT_EQ(
      find_class_names("bailing_hybrid", {"BailingMoeV3ForCausalLM"})->name,
      "bailing_moe_v3");
  EXPECT_EQ(
      find_class_names("bailing_hybrid", {"Other"})->name, "bailing_hybrid");
  EXPECT_FALSE(find_class_names("kimi_k3", nullptr)->not_taken.empty());
  EXPECT_FALSE(find_class_names("llama", nullptr));
  const auto jamba = find_class_names("jamba", nullptr);
  EXPECT_EQ(
      jamba->tensors.at("model.layers.*.feed_forward.router.weight").own,
      make_quant_spec("affine", 8, 64));
}

std::string wrong(
    const char* type,
    const Json& config,
    const std::string& name,
    const mx::Shape& shape) {
  const auto names = find_class_names(type, nullptr);
  return AxisCheck(*names, config).wrong(name, shape);
}

TEST(ClassNames, ShapesAreWhatTheConfigSays) {
  const Json config{
      {"hidden_size", 64},
      {"mamba_expand", 2},
      {"num_experts", 5},
      {"intermediate_size", 128}};
  const auto of = [&](const std::string& name, const mx::Shape& shape) {
    return wrong("jamba", config, "model.layers.3." + name, shape);
  };
  EXPECT_EQ(of("input_layernorm.weight", {64}), "");
  EXPECT_EQ(
      of("input_layernorm.weight", {65}),
      "has shape [65], where the config's hidden_size asks for 64 in place of "
      "65");
  EXPECT_EQ(of("mamba.D", {128}), "");
  EXPECT_EQ(
      of("mamba.D", {64}),
      "has shape [64], where the config's hidden_size * mamba_expand asks for "
      "128 in place of 64");
  EXPECT_NE(of("feed_forward.switch_mlp.up_proj.weight", {5, 64, 64}), "");
  // Of another number of axes, and no tensor of the class's: others say so.
  EXPECT_EQ(of("input_layernorm.weight", {65, 1}), "");
  EXPECT_EQ(of("other.weight", {1}), "");
}

TEST(ClassNames, WhatTheConfigLeavesOpenIsNotCompared) {
  const auto of = [&](const Json& config, int extent) {
    return wrong("longcat_flash", config, "model.norm.weight", {extent});
  };
  EXPECT_NE(of({{"hidden_size", 64}}, 32), "");
  for (const Json& open :
       {Json(), Json("64"), Json(64.0), Json(0), Json(-64), Json{64, 32}}) {
    EXPECT_EQ(of({{"hidden_size", open}}, 32), "") << open;
  }
  EXPECT_EQ(of(Json::object(), 32), "");
  // A key that no model was tried with may change any axis.
  EXPECT_NE(wrong("gpt2", {{"n_embd", 64}}, "model.ln_f.weight", {32}), "");
  EXPECT_EQ(
      wrong(
          "gpt2",
          {{"n_embd", 64}, {"num_key_value_heads", 2}},
          "model.ln_f.weight",
          {32}),
      "");
}

}  // namespace
}  // namespace pennyweight
