#include "core/text.h"

#include <gtest/gtest.h>

namespace pennyweight {
namespace {

using Parts = std::vector<std::string>;

TEST(Text, IsSplitAtEachMark) {
  EXPECT_EQ(split("model.layers.7", '.'), (Parts{"model", "layers", "7"}));
  EXPECT_EQ(split("a,,b,", ','), (Parts{"a", "", "b"}));
  EXPECT_EQ(split("", ','), Parts{});
}

TEST(Text, OnlyAsciiLettersAreMadeSmall) {
  EXPECT_EQ(lower_case("FP8_Block-Å"), "fp8_block-Å");
}

}  // namespace
}  // namespace pennyweight
