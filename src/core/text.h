#pragma once

#include <string>
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
/// What stands between the marks; nothing behind a last one.
std::vector<std::string> split(const std::string& text, char mark);
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
