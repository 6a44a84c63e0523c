#include "core/error.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace pennyweight {

TEST(Error, IsOneLineWithoutControlCharacters) {
  Error error(ErrorCode::corrupt, "x", "a\nb\tc\x1b[31m\x7f \u009b1m \u00e9");
  EXPECT_STREQ(error.what(), "[x] a b c [31m   1m \u00e9");
  EXPECT_EQ(error.code(), ErrorCode::corrupt);
}

TEST(Error, QuotesAtMostTheLimit) {
  EXPECT_EQ(one_line("abcdef", 3), "abc...");
  EXPECT_EQ(one_line("abc", 3), "abc");
}

TEST(Error, AFailedCallSaysWhatToDo) {
  auto full = io_error("write", "can't write", "/x", ENOSPC);
  EXPECT_EQ(full.code(), ErrorCode::io);
  EXPECT_NE(
      std::string(full.what()).find("free some space"), std::string::npos);
  auto denied = io_error("write", "can't write", "/x", EACCES);
  EXPECT_NE(
      std::string(denied.what()).find("you may write"), std::string::npos);
  auto missing = io_error("read", "can't open", "/x", ENOENT);
  EXPECT_EQ(missing.code(), ErrorCode::not_found);
}

TEST(Shown, WhatATerminalWouldObeyIsEscaped) {
  EXPECT_EQ(
      shown("a\nerror: fake\x1b[31m\t\x7f"),
      "a\\nerror: fake\\x1b[31m\\t\\x7f");
  EXPECT_EQ(shown("\xc2\x9b[31m"), "\\u009b[31m");
  EXPECT_EQ(shown("\xe2\x80\xaetxt"), "\\u202etxt");
  EXPECT_EQ(shown("\xe2\x80\xa8"), "\\u2028");
}

TEST(Shown, TextStaysAndBytesThatAreNoneDoNot) {
  const std::string text = "modèle 模型 😀 \\ 'q'";
  EXPECT_EQ(shown(text), text);
  EXPECT_EQ(shown("x\xffy\xc3"), "x\\xffy\\xc3");
  EXPECT_EQ(shown("\xc0\xaf\xed\xa0\x80"), "\\xc0\\xaf\\xed\\xa0\\x80");
  EXPECT_EQ(shown(""), "");
}

}  // namespace pennyweight
