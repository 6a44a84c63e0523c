#include "run/work/work_settings.h"

#include <vector>

#include "core/error.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/json_text.h"
#include "core/text.h"

namespace pennyweight {

namespace {

std::string difference(
    const std::string& name,
    const std::string& before,
    const std::string& now) {
  return name + " (" + one_line(before, 60) + ", now " + one_line(now, 60) +
      ")";
}

// The names, "a.b" for what is nested, of values that differ.
void list_differences(
    const Json& before,
    const Json& now,
    const std::string& name,
    std::vector<std::string>& found) {
  if (before.is_object() && now.is_object()) {
    Json keys = before;
    keys.update(now);
    for (const auto& [key, unused] : keys.items()) {
      list_differences(
          before.value(key, Json()),
          now.value(key, Json()),
          name.empty() ? key : name + "." + key,
          found);
    }
  } else if (to_text(before) != to_text(now)) {
    found.push_back(difference(name, to_text(before), to_text(now)));
  }
}

Json object_in(const Json& json, const char* key) {
  const auto it = json.find(key);
  return it != json.end() && it->is_object() ? *it : Json::object();
}

ModelIdentity identity_of(const Json& models, const std::string& name) {
  const auto own = object_in(models, name.c_str());
  return {own.value("folder", ""), own.value("content", "")};
}

}  // namespace

Json to_json(const WorkSettings& settings) {
  Json models = Json::object();
  for (const auto& [name, own] : settings.models) {
    models[name] = {{"folder", own.folder}, {"content", own.content}};
  }
  return {{"settings", settings.settings}, {"models", models}};
}

std::string run_of(const WorkSettings& settings) {
  Hash hash;
  hash.add(to_text(settings.settings));
  for (const auto& [name, own] : settings.models) {
    hash.add(name);
    hash.add(own.content);
  }
  return hash.text();
}

void compare_settings(
    const WorkSettings& settings,
    const Json& before,
    const std::filesystem::path& target) {
  std::vector<std::string> found;
  list_differences(object_in(before, "settings"), settings.settings, "", found);
  const auto models = object_in(before, "models");
  for (const auto& [name, now] : settings.models) {
    const auto old = identity_of(models, name);
    if (old.content != now.content && old.folder != now.folder) {
      // Whole, since the ends of paths tell them apart.
      found.push_back(
          name + " (" + shown(old.folder) + ", now " + shown(now.folder) + ")");
    }
  }
  if (found.empty()) {
    return;
  }
  throw argument_error(
      "resume",
      "an unfinished run for " + target.string() + " has other settings: " +
          joined(found) + "; use those, or drop its work with --force");
}

std::optional<std::string> changed_model(
    const WorkSettings& settings,
    const Json& before) {
  const auto models = object_in(before, "models");
  for (const auto& [name, now] : settings.models) {
    if (identity_of(models, name).content != now.content) {
      return now.folder;
    }
  }
  return std::nullopt;
}

}  // namespace pennyweight
