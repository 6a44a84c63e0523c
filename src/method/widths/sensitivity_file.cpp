#include "method/widths/sensitivity_file.h"

#include <algorithm>
#include <map>

#include "core/error.h"
#include "core/json.h"

namespace pennyweight {

namespace {

/// Weights, of a stack all.
double million(const ModuleSpec& module) {
  const auto stack = std::max<int64_t>(1, module.count);
  return static_cast<double>(stack * module.out * module.in) * 1e-6;
}

/// Of a module that there is nothing to choose of.
ModuleLosses unmeasured(size_t candidates) {
  return {std::vector<double>(candidates, 0.0), 0.0};
}

[[noreturn]] void missing(const std::string& file, const ModuleSpec& module) {
  throw not_found_error(
      "dynamic-quant",
      file + " has no sensitivity of " + module.path +
          "; is it of another model?");
}

std::vector<ModuleLosses> read_pairs(
    const Json& json,
    const std::string& file,
    const std::vector<ModuleSpec>& modules) {
  std::map<std::string, double> values;
  for (const Json& pair : json) {
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() ||
        !pair[1].is_number()) {
      throw corrupt_error(
          "dynamic-quant",
          file + " is not a list of pairs of a module and a number");
    }
    values.emplace(pair[0].get<std::string>(), pair[1].get<double>());
  }
  std::vector<ModuleLosses> losses;
  for (const ModuleSpec& module : modules) {
    if (!module.packable || module.published) {
      losses.push_back(unmeasured(2));
      continue;
    }
    const auto it = values.find(module.path);
    if (it == values.end()) {
      missing(file, module);
    }
    losses.push_back(
        {{std::max(0.0, it->second) * million(module), 0.0}, it->second});
  }
  return losses;
}

ModuleLosses read_figures(
    const JsonView& json,
    const ModuleSpec& module,
    const std::vector<Candidate>& candidates) {
  const auto modules = json.object("modules");
  const auto own =
      modules ? modules->object(module.path) : std::optional<JsonView>();
  const auto figures =
      own ? own->object("candidates") : std::optional<JsonView>();
  if (!figures) {
    missing(json.origin(), module);
  }
  std::vector<RoundingEffect> effects;
  for (const auto& candidate : candidates) {
    const auto entry = figures->object(candidate_name(candidate));
    if (!entry) {
      throw not_found_error(
          "dynamic-quant",
          json.origin() + " has no figures of " + candidate_name(candidate) +
              "; measure anew without --sensitivities");
    }
    effects.push_back({entry->number("alignment"), entry->number("error")});
  }
  return {
      estimate_losses(
          own->number("alignment"), own->number("low_error"), effects),
      effects.back().alignment / million(module)};
}

}  // namespace

ModuleLosses module_losses(
    const Sensitivities& measured,
    const ModuleSpec& module) {
  if (module.published) {
    return {};
  }
  const auto& own = measured.modules.at(module.path);
  return {
      estimate_losses(own.whole, own.low_error, own.effects),
      // The last of two candidates is the high one.
      own.effects.back().alignment * 1e6 / static_cast<double>(own.parameters)};
}

std::string SensitivityFile::text(
    const Sensitivities& measured,
    const QuantSpec& low,
    const std::vector<ModuleSpec>& modules) const {
  Json json = Json::array();
  if (!listed_) {
    for (const ModuleSpec& module : modules) {
      if (module.packable && !module.published) {
        json.push_back(
            {module.path, module_losses(measured, module).sensitivity});
      }
    }
  } else {
    json = {
        {"low", to_json(low)},
        {"kl", measured.loss},
        {"modules", Json::object()}};
    for (const auto& [path, own] : measured.modules) {
      Json entry{
          {"parameters", own.parameters},
          {"alignment", own.whole},
          {"low_error", own.low_error},
          {"candidates", Json::object()}};
      for (size_t i = 0; i < candidates_.size(); ++i) {
        entry["candidates"][candidate_name(candidates_[i])] = {
            {"alignment", own.effects[i].alignment},
            {"error", own.effects[i].error}};
      }
      json["modules"][path] = entry;
    }
  }
  return json.dump(1) + "\n";
}

std::vector<ModuleLosses> SensitivityFile::read(
    const std::filesystem::path& file,
    const std::vector<ModuleSpec>& modules) const {
  const auto json = read_json(file);
  if (!json.is_array()) {
    std::vector<ModuleLosses> losses;
    for (const ModuleSpec& module : modules) {
      losses.push_back(
          module.published
              ? unmeasured(candidates_.size())
              : read_figures(
                    JsonView(json, file.string()), module, candidates_));
    }
    return losses;
  }
  if (listed_) {
    throw argument_error(
        "dynamic-quant",
        file.string() +
            " is for two widths only; leave out --candidates, or leave "
            "out --sensitivities to measure them");
  }
  return read_pairs(json, file.string(), modules);
}

}  // namespace pennyweight
