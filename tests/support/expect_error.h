#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "core/error.h"

namespace pennyweight::testing {

/// Expects `action` to throw an Error of `code` whose text is one line that
/// holds `part`.
inline void expect_error(
    ErrorCode code,
    const std::string& part,
    const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error_code_name(error.code()), error_code_name(code))
        << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
        << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return;
  }
  ADD_FAILURE() << "no error; expected one about " << part;
}

}  // namespace pennyweight::testing
