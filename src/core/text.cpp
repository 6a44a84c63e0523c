#include "core/text.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdarg>
#include <cstdio>

#include "core/error.h"

namespace pennyweight {

std::string lower_case(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) {
    return static_cast<char>(std::tolower(c));
  });
  return text;
}

std::string joined(
    const std::vector<std::string>& texts,
    const std::string& between) {
  std::string all;
  for (size_t i = 0; i < texts.size(); ++i) {
    all += (i > 0 ? between : "") + texts[i];
  }
  return all;
}

std::vector<std::string> split(const std::string& text, char mark) {
  auto parts = cut(text, mark);
  if (parts.back().empty()) {
    parts.pop_back();
  }
  return parts;
}

std::vector<std::string> cut(const std::string& text, char mark) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(mark, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

std::string formatted(const char* format, ...) {
  char text[256];
  va_list values;
  va_start(values, format);
  std::vsnprintf(text, sizeof(text), format, values);
  va_end(values);
  return text;
}

std::string fixed(double value, int decimals) {
  return formatted("%.*f", decimals, value);
}

std::string three_digits(double value) {
  return formatted("%.3g", value);
}

std::string human_bytes(double bytes) {
  static constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB"};
  int unit = 0;
  while (bytes >= 1000 && unit < 4) {
    bytes /= 1000;
    ++unit;
  }
  return fixed(bytes, unit > 0 && bytes < 100 ? 2 : 0) + " " + kUnits[unit];
}

std::string human_time(double seconds) {
  const auto whole = static_cast<int>(std::lround(std::min(seconds, 1e7)));
  const int minutes = whole / 60;
  return whole >= 3600
      ? formatted("%d:%02d:%02d", minutes / 60, minutes % 60, whole % 60)
      : formatted("%d:%02d", minutes, whole % 60);
}

std::string table(const std::vector<std::vector<std::string>>& cells) {
  auto rows = cells;
  for (auto& row : rows) {
    for (auto& cell : row) {
      cell = shown(cell);
    }
  }
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], row[i].size());
    }
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      std::string pad(widths[i] - row[i].size(), ' ');
      line += (i == 0 ? row[i] + pad : "  " + pad + row[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

}  // namespace pennyweight
