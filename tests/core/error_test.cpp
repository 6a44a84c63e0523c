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

}  // namespace pennyweight
