#include "model/names/class_names.h"

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

}  // namespace
}  // namespace pennyweight
