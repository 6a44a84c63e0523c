#include "core/text.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>

#include "core/error.h"

namespace pennyweight {

std::string fixed(double value, int decimals) {
  char buffer[64];
  std::snprintf(buffer, sizeof(buffer), "%.*f", decimals, value);
  return buffer;
}

std::string three_digits(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof(buffer), "%.3g", value);
  return buffer;
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
  auto whole = static_cast<int64_t>(std::llround(std::min(seconds, 1e7)));
  char buffer[32];
  if (whole >= 3600) {
    std::snprintf(
        buffer,
        sizeof(buffer),
        "%d:%02d:%02d",
        static_cast<int>(whole / 3600),
        static_cast<int>(whole / 60 % 60),
        static_cast<int>(whole % 60));
  } else {
    std::snprintf(
        buffer,
        sizeof(buffer),
        "%d:%02d",
        static_cast<int>(whole / 60),
        static_cast<int>(whole % 60));
  }
  return buffer;
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
