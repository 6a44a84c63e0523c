#include "core/bytes.h"

#include "support/expect_error.h"

namespace pennyweight {
namespace {

using testing::expect_error;

TEST(Bytes, UnitsCountByThousandOrBy1024) {
  EXPECT_EQ(parse_bytes("500000000", "--x"), 500000000);
  EXPECT_EQ(parse_bytes("4GB", "--x"), 4000000000);
  EXPECT_EQ(parse_bytes("4g", "--x"), 4000000000);
  EXPECT_EQ(parse_bytes("1.5GiB", "--x"), 1610612736);
  EXPECT_EQ(parse_bytes("800 MB", "--x"), 800000000);
  EXPECT_EQ(parse_bytes("2kib", "--x"), 2048);
  EXPECT_EQ(parse_bytes("7B", "--x"), 7);
}

TEST(Bytes, RefusesWhatIsNoSize) {
  for (const char* text :
       {"",
        "GB",
        "4XB",
        "4GBs",
        "-1GB",
        "0",
        "nan",
        "inf",
        "1e30TB",
        "1e9",
        "1.2.3",
        ".",
        "+4GB",
        " 4GB",
        "9999999TB",
        "0.4",
        "4 4"}) {
    expect_error(ErrorCode::invalid_argument, "--memory-limit", [&] {
      parse_bytes(text, "--memory-limit");
    });
  }
}

}  // namespace
}  // namespace pennyweight
