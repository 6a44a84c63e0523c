#pragma once

// What libFuzzer targets share.

#include <cstdlib>
#include <string_view>

#include "core/error.h"

/// Ends the program, which libFuzzer reports with the input, unless it holds.
inline void require(bool holds) {
  if (!holds) {
    std::abort();
  }
}

/// An error is one line that can be shown.
inline void require_one_line(const pennyweight::Error& error) {
  std::string_view what = error.what();
  require(what.size() < 2000 && what.starts_with('['));
  for (char c : what) {
    require(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
  }
}
