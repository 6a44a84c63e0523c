#include "core/bytes.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <locale>
#include <sstream>

#include "core/error.h"
#include "core/text.h"

namespace pennyweight {

namespace {

// What a unit stands for; 0 for none that is known.
double unit_bytes(const std::string& text) {
  const auto unit = lower_case(text);
  if (unit.empty() || unit == "b") {
    return 1;
  }
  auto power = std::string("kmgt").find(unit[0]);
  if (power == std::string::npos) {
    return 0;
  }
  auto rest = unit.substr(1);
  if (rest.empty() || rest == "b") {
    return std::pow(1000.0, double(power + 1));
  }
  return rest == "ib" ? std::pow(1024.0, double(power + 1)) : 0;
}

}  // namespace

int64_t parse_bytes(const std::string& text, const std::string& option) {
  // Digits and at most one point; from_chars of a double is not everywhere.
  auto unit = std::min(text.find_first_not_of("0123456789."), text.size());
  double number = 0;
  std::istringstream digits(text.substr(0, unit));
  digits.imbue(std::locale::classic());
  bool read = bool(digits >> number) && digits.peek() == EOF;
  unit = std::min(text.find_first_not_of(' ', unit), text.size());
  double bytes = read ? number * unit_bytes(text.substr(unit)) : 0;
  if (!(bytes >= 1 && bytes < 9e18)) {
    throw argument_error(
        "options",
        option + " " + one_line(text, 40) +
            ": give a size such as 4GB or "
            "800MiB");
  }
  return static_cast<int64_t>(bytes);
}

}  // namespace pennyweight
