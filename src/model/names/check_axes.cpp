#include "model/names/check_axes.h"

#include <algorithm>

#include "core/text.h"

namespace pennyweight {

namespace {

// The value of a key with dots between objects; null where there is none.
Json value_at(const Json& config, const std::string& key) {
  const Json* inner = &config;
  for (const auto& part : split(key, '.')) {
    const auto it = inner->is_object() ? inner->find(part) : inner->end();
    if (it == inner->end()) {
      return {};
    }
    inner = &*it;
  }
  return *inner;
}

}  // namespace

AxisCheck::AxisCheck(const ClassNames& names, const Json& config)
    : names_(names), config_(config) {
  const Json& untried = names.facts.at("untried");
  knows_ = std::none_of(untried.begin(), untried.end(), [&](const Json& key) {
    return !value_at(config, key.get<std::string>()).is_null();
  });
}

std::string AxisCheck::wrong(const std::string& name, const mx::Shape& shape)
    const {
  if (!knows_) {
    return "";
  }
  for (const auto& pattern : patterns_of(name)) {
    const auto it = names_.axes.find(pattern);
    if (it == names_.axes.end() || it->second.size() != shape.size()) {
      continue;
    }
    for (size_t i = 0; i < shape.size(); ++i) {
      if (const auto asked = asked_for(it->second[i], shape[i]);
          !asked.empty()) {
        return "has shape " + bracketed(shape) + ", where the config's " +
            asked;
      }
    }
  }
  return "";
}

std::string AxisCheck::asked_for(const ClassNames::Axis& axis, int extent)
    const {
  constexpr int64_t kMost = int64_t{1} << 31;
  int64_t wanted = axis.factor;
  std::string text = axis.factor > 1 ? std::to_string(axis.factor) : "";
  for (const auto& key : axis.keys) {
    const Json value = value_at(config_, key);
    if (!value.is_number_integer() || value < 1 || value > kMost / wanted) {
      return "";
    }
    wanted *= value.get<int64_t>();
    text += (text.empty() ? "" : " * ") + key;
  }
  return axis.keys.empty() || extent == wanted ? ""
                                               : text + " asks for " +
          std::to_string(wanted) + " in place of " + std::to_string(extent);
}

}  // namespace pennyweight
