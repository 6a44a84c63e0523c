#include "core/hash.h"

#include <gtest/gtest.h>

namespace pennyweight {
namespace {

std::string sum(const std::string& text) {
  Hash hash;
  hash.add(text.data(), text.size());
  return hash.text();
}

// https://github.com/Cyan4973/xxHash: `printf '' | xxhsum -H128`.
TEST(Hash, IsXxh3Of128Bits) {
  EXPECT_EQ(sum(""), "99aa06d3014798d86001c324468d497f");
}

TEST(Hash, PartsDontMatterAndEndsOfTextsDo) {
  Hash parts;
  parts.add("ab", 2);
  parts.add("cd", 2);
  EXPECT_EQ(parts.text(), sum("abcd"));
  Hash one;
  one.add(std::string("ab"));
  one.add(std::string("c"));
  Hash other;
  other.add(std::string("a"));
  other.add(std::string("bc"));
  EXPECT_NE(one.text(), other.text());
  EXPECT_EQ(sum("x").size(), 32u);
}

}  // namespace
}  // namespace pennyweight
