#include "model/names/rule_sources.h"

#include <algorithm>

#include "core/error.h"
#include "model/names/class_names.h"

namespace pennyweight {

namespace {

int64_t number_of(const RuleUse& use, const char* key, int64_t fallback) {
  const auto it = use.rule.find(key);
  return it == use.rule.end() ? fallback
      : it->is_string()       ? use.integer(it->get<std::string>())
                              : it->get<int64_t>();
}

int whole_rows(const TensorInfo& stored, int64_t by) {
  if (stored.shape.empty() || stored.shape[0] < by ||
      stored.shape[0] % by != 0) {
    throw corrupt_error(
        "model",
        "tensor " + one_line(stored.name, 120) +
            " has no rows that divide by " + std::to_string(by) +
            ", as the config says");
  }
  return static_cast<int>(stored.shape[0] / by);
}

TensorSource formed_as(const RuleUse& use) {
  TensorSource source{.name = use.stored.name};
  const auto number = [&](const char* key) {
    return static_cast<int>(number_of(use, key, 0));
  };
  source.transposed = use.rule.contains("transposed");
  source.width_first = use.rule.contains("width_first");
  source.add = static_cast<float>(number("add"));
  source.split = number("split");
  source.first = number("first");
  source.end = number("end");
  if (use.rule.contains("row")) {
    source.split = whole_rows(use.stored, number_of(use, "row", 1));
  }
  if (use.rule.contains("half")) {
    const auto& shape = use.stored.shape;
    const int half = shape.empty() ? 0 : shape.back() / 2;
    source.vectors = true;
    source.first = number("half") * half;
    source.end = source.first + half;
  }
  return source;
}

}  // namespace

std::map<std::string, TensorSource> sources_of(const RuleUse& use) {
  auto source = formed_as(use);
  const auto from = use.rule.at("from").get<std::string>();
  auto numbers = numbers_in(use.stored.name);
  if (const auto at = from.find('#'); at != from.npos) {
    numbers.erase(
        numbers.begin() + std::ranges::count(from.substr(0, at), '*'));
    source.name = filled(from, numbers);
    source.count = number_of(use, "count", 1);
  }
  const auto to = filled(use.rule.at("to").get<std::string>(), numbers);
  if (!use.rule.contains("parts")) {
    return {{to, source}};
  }
  std::map<std::string, TensorSource> all;
  const int64_t parts = number_of(use, "parts", 1);
  const int rows = whole_rows(use.stored, parts);
  for (int64_t part = 0; part < parts; ++part) {
    source.first = static_cast<int>(part) * rows;
    source.end = source.first + rows;
    all.emplace(filled(to, {std::to_string(part)}, '#'), source);
  }
  return all;
}

}  // namespace pennyweight
