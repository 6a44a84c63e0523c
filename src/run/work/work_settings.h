#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "core/json.h"
#include "run/work/fingerprint.h"

namespace pennyweight {

/// What determines a run's result.
struct WorkSettings {
  WorkSettings(Json all, std::map<std::string, ModelIdentity> read = {})
      : settings(std::move(all)), models(std::move(read)) {}

  Json settings;
  std::map<std::string, ModelIdentity> models;  // by what they are read as
};

/// As a work folder keeps them.
Json to_json(const WorkSettings& settings);

/// Tells runs apart by their results: of all settings and of what the models
/// hold, wherever they lie.
std::string run_of(const WorkSettings& settings);

/// invalid_argument Error that names the settings which differ from `before`
/// (to_json of another), and models that hold something else and lie in other
/// folders: those are not the same ones changed.
void compare_settings(
    const WorkSettings& settings,
    const Json& before,
    const std::filesystem::path& target);

/// The folder of a model that lies where it lay and holds something else.
std::optional<std::string> changed_model(
    const WorkSettings& settings,
    const Json& before);

}  // namespace pennyweight
