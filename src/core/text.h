#pragma once

#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// Numbers, sizes and times as people read them, and texts in parts.
namespace pennyweight {

/// "1.5 GB", "12 MB": decimal units, as file managers and hubs count.
std::string human_bytes(double bytes);
/// "1:02:03" or "4:05".
std::string human_time(double seconds);
/// Columns padded to their widest cell; the first is left-aligned, the rest
/// right-aligned. cells[0] is the header. Names are shown().
std::string table(const std::vector<std::vector<std::string>>& cells);
/// ASCII letters made small.
std::string lower_case(std::string text);
/// The texts with `between` between them.
std::string joined(
    const std::vector<std::string>& texts,
    const std::string& between = ", ");
/// "[2, 3]".
template <class Numbers>
std::string bracketed(const Numbers& numbers) {
  std::vector<std::string> texts;
  for (const auto number : numbers) {
    texts.push_back(std::to_string(number));
  }
  return "[" + joined(texts) + "]";
}
/// The parts between the marks, one more than there are marks: "a,,b," has the
/// parts "a", "", "b" and "", and an empty text has one, which is empty.
std::vector<std::string> cut(const std::string& text, char mark);
/// The same, without an empty part at the end: an empty text has none.
std::vector<std::string> split(const std::string& text, char mark);
/// The number that the whole text is, as from_chars reads it.
template <class Number>
std::optional<Number> number_in(std::string_view text) {
  Number number{};
  const char* end = text.data() + text.size();
  const auto [stop, failed] = std::from_chars(text.data(), end, number);
  return failed == std::errc() && stop == end ? std::optional(number)
                                              : std::nullopt;
}
/// As printf writes it, 255 characters at most.
#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
std::string
formatted(const char* format, ...);
/// A number with so many decimals.
std::string fixed(double value, int decimals);
/// With three digits that count, such as "6.55e+04".
std::string three_digits(double value);

}  // namespace pennyweight
