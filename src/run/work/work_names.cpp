#include "run/work/work_names.h"

#include <algorithm>
#include <cinttypes>
#include <functional>

#include "core/text.h"

namespace pennyweight {

std::string block_name(int index) {
  return formatted("block-%05d", index);
}

std::string state_name(int64_t step) {
  return formatted("state-%010" PRId64, step);
}

std::optional<std::string> foreign_entry(const DirHandle& folder) {
  constexpr const char* kOwn[] = {"lock", "settings.json", "stages", "student"};
  for (const auto& name : folder.names()) {
    // What begins with a point was on its way to become something.
    const bool own = name.starts_with("block-") || name.starts_with("state-") ||
        name.starts_with(".") || std::ranges::count(kOwn, name) > 0;
    if (!own) {
      return name;
    }
  }
  return std::nullopt;
}

bool has_blocks_from(const DirHandle& folder, int first) {
  return std::ranges::any_of(folder.names(), [&](const std::string& name) {
    int index = 0;
    return std::sscanf(name.c_str(), "block-%d", &index) == 1 &&
        name == block_name(index) && index >= first;
  });
}

std::vector<int64_t> list_states(const DirHandle& folder) {
  std::vector<int64_t> steps;
  for (const auto& name : folder.names()) {
    int64_t step = 0;
    if (std::sscanf(name.c_str(), "state-%" SCNd64, &step) == 1 &&
        name == state_name(step)) {
      steps.push_back(step);
    }
  }
  std::ranges::sort(steps, std::greater());
  return steps;
}

}  // namespace pennyweight
