#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace pennyweight {

/// A number that Python's json reads and writes, and JSON has not.
struct JsonLiteral {
  std::string_view text;      // as Python writes it
  std::string_view stand_in;  // a JSON string that goes through the parser
  std::string_view value;     // of that string
  double number;
};

/// `text` with stand-ins for NaN, Infinity, -Infinity and for numbers that are
/// too large for a double; nullopt where it has none. Strings are left alone.
std::optional<std::string> with_stand_ins(std::string_view text);

/// By the value of a stand-in, by Python's word and by the number, which is not
/// finite; nullptr where it is none.
const JsonLiteral* literal_in(std::string_view value);
const JsonLiteral* literal_named(std::string_view text);
const JsonLiteral& literal_of(double number);

}  // namespace pennyweight
