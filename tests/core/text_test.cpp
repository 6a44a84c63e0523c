#include "core/text.h"

#include <gtest/gtest.h>

namespace pennyweight {
namespace {

using Parts = std::vector<std::string>;

TEST(Text, IsSplitAtEachMark) {
  EXPECT_EQ(split("model.layers.7", '.'), (Parts{"model", "layers", "7"}));
  EXPECT_EQ(split("a,,b,", ','), (Parts{"a", "", "b"}));
  EXPECT_EQ(split("a,,", ','), (Parts{"a", ""}));
  EXPECT_EQ(split(",", ','), Parts{""});
  EXPECT_EQ(split("", ','), Parts{});
}

TEST(Text, OnlyAsciiLettersAreMadeSmall) {
  EXPECT_EQ(lower_case("FP8_Block-Å"), "fp8_block-Å");
}

TEST(Text, JoinsAndCuts) {
  EXPECT_EQ(joined({}), "");
  EXPECT_EQ(joined({"", "b"}), ", b");
  EXPECT_EQ(joined({"a", "b", "c"}, " or "), "a or b or c");
  EXPECT_EQ(bracketed(std::vector<int64_t>{2, 3}), "[2, 3]");
  EXPECT_EQ(bracketed(std::vector<int>{}), "[]");
  EXPECT_EQ(cut("", ':'), (std::vector<std::string>{""}));
  EXPECT_EQ(cut("6:", ':'), (std::vector<std::string>{"6", ""}));
  EXPECT_EQ(cut(":a:b", ':'), (std::vector<std::string>{"", "a", "b"}));
}

TEST(Text, NumbersAreTheWholeText) {
  EXPECT_EQ(number_in<int>("64"), 64);
  EXPECT_EQ(number_in<double>("2.5"), 2.5);
  for (const char* text : {"", "6x", " 6", "99999999999", "+6"}) {
    EXPECT_FALSE(number_in<int>(text)) << text;
  }
}

}  // namespace
}  // namespace pennyweight
