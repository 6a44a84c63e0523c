#include "run/pins/pattern.h"

#include <gtest/gtest.h>

#include <chrono>

namespace pennyweight {
namespace {

const std::string kQ = "model.layers.3.self_attn.q_proj";

TEST(Pattern, MatchesAPathOrItsEndBehindADot) {
  for (const char* pattern :
       {"model.layers.3.self_attn.q_proj",
        "self_attn.q_proj",
        "q_proj",
        "self_attn.*",
        "*",
        "*_proj",
        "*self_attn*",
        "layers.?.self_attn.q_proj",
        "layers.[0-3].*",
        "layers.[!4-9].*",
        "model.*.q_proj",
        "*.3.*"}) {
    EXPECT_TRUE(matches_path(pattern, kQ)) << pattern;
  }
  for (const char* pattern :
       {"",
        "proj",
        "self_attn",
        "model.layers.3",
        "attn.q_proj",
        "layers.[4-9].*",
        "layers.[!0-3].*",
        "layers.??.*",
        "q_proj.*",
        "Q_PROJ"}) {
    EXPECT_FALSE(matches_path(pattern, kQ)) << pattern;
  }
}

TEST(Pattern, LayersAreNumbersAndNotBeginnings) {
  EXPECT_FALSE(matches_path("model.layers.1.*", "model.layers.11.mlp.up_proj"));
  EXPECT_FALSE(matches_path("1.*", "model.layers.11.mlp.up_proj"));
}

TEST(Pattern, WrappersCountForNothing) {
  const std::string wrapped = "language_model." + kQ;
  EXPECT_TRUE(matches_path(kQ, wrapped));
  EXPECT_TRUE(matches_path("model.layers.3.*", wrapped));
  EXPECT_TRUE(matches_path(wrapped, kQ));
  EXPECT_TRUE(matches_path("model.language_model.layers.3.*", wrapped));
  EXPECT_FALSE(matches_path("my_language_model." + kQ, kQ));
}

TEST(Pattern, SetsHoldBracketsAndEndWithOne) {
  EXPECT_TRUE(matches_path("a[]]b", "a]b"));
  EXPECT_TRUE(matches_path("a[!]]b", "axb"));
  EXPECT_TRUE(matches_path("a[-x]b", "a-b"));
  EXPECT_TRUE(is_glob("a[]]b"));
  for (const char* open : {"[", "a[", "a[]", "a[!", "a[!]", "[a][b"}) {
    EXPECT_FALSE(is_glob(open)) << open;
  }
}

TEST(Pattern, HostileStarsTakeNoTime) {
  std::string stars;
  for (int i = 0; i < 300; ++i) {
    stars += "*a";
  }
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(matches_path(stars + "b", std::string(1000, 'a')));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

}  // namespace
}  // namespace pennyweight
