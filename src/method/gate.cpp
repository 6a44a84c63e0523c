#include "method/gate.h"

#include <algorithm>

#include "core/text.h"

namespace pennyweight {

namespace {

std::string percent(double share) {
  return fixed(100 * share, 2) + " %";
}

}  // namespace

size_t least(const std::vector<Judged>& ways) {
  const auto best = std::min_element(
      ways.begin(), ways.end(), [](const Judged& a, const Judged& b) {
        return a.error < b.error;
      });
  return static_cast<size_t>(best - ways.begin());
}

std::map<std::string, double> by_name(const std::vector<Judged>& ways) {
  std::map<std::string, double> errors;
  for (const Judged& way : ways) {
    errors[way.name] = way.error;
  }
  return errors;
}

std::string describe_kept(
    const BlockSpec& block,
    const std::vector<Judged>& ways,
    size_t kept) {
  return block.path + ": " + ways[kept].name +
      " has the lower held-out error (" + percent(ways[kept].error) +
      " against " + percent(ways[0].error) + ") and was kept";
}

}  // namespace pennyweight
