#pragma once

#include <string>
#include <string_view>

#include "text/rows/rows.h"

namespace pennyweight {

/// Rows of a list that are tried to tell whether it is one of rows.
inline constexpr size_t kTriedRows = 16;

/// Where rows go, and those that can't be used.
class RowSink {
 public:
  RowSink(const RowFn& each, const BadRowFn& bad) : each_(each), bad_(bad) {}

  /// What becomes of a row that `make` gives or refuses by a RowError; false
  /// where the reading is to stop.
  template <class Make>
  bool give_made(Make&& make) const {
    Row row;
    try {
      row = make();
    } catch (const RowError& error) {
      if (!bad_) {
        throw;
      }
      bad_(error);
      return true;
    }
    return each_(std::move(row));
  }

  bool give(const Json& json, const std::string& where) const {
    return give_made([&] { return to_row(json, where); });
  }

  /// A row as JSON, which may be broken.
  bool give_line(std::string_view line, const std::string& where) const {
    return give_made([&] { return to_row(parse_row(line, where), where); });
  }

 private:
  static Json parse_row(std::string_view line, const std::string& where) {
    const size_t bad = find_invalid_utf8(line);
    if (bad != std::string_view::npos) {
      throw RowError(
          where,
          "that is not valid UTF-8",
          "at byte " + std::to_string(bad) + " of the line");
    }
    try {
      return parse_json(line, where);
    } catch (const Error&) {
      throw RowError(where, "that is not valid JSON");
    }
  }

  const RowFn& each_;
  const BadRowFn& bad_;
};

}  // namespace pennyweight
