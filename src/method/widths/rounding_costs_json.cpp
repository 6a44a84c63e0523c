#include "core/error.h"
#include "core/json.h"
#include "method/widths/rounding_costs.h"

#include <cmath>
#include <limits>

namespace pennyweight {

namespace {

[[noreturn]] void broken(const std::string& origin, const std::string& what) {
  throw corrupt_error(
      "costs",
      origin + " is no table of rounding costs: " + what +
          "; measure them anew");
}

const Json&
field(const Json& json, const char* key, const std::string& origin) {
  const auto it = json.is_object() ? json.find(key) : json.end();
  if (!json.is_object() || it == json.end()) {
    broken(origin, std::string(key) + " is missing");
  }
  return *it;
}

int64_t count_of(const Json& json, const char* key, const std::string& origin) {
  const Json& value = field(json, key, origin);
  if (!value.is_number_integer() || value.get<int64_t>() < 0) {
    broken(origin, std::string(key) + " is not a count");
  }
  return value.get<int64_t>();
}

double loss_from(const Json& json, const std::string& origin) {
  if (json.is_null()) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  if (!json.is_number()) {
    broken(origin, "a loss is not a number");
  }
  return json.get<double>();
}

}  // namespace

Json to_json(const RoundingCosts& costs) {
  Json json{
      {"tokens", costs.tokens},
      {"candidates", Json::array()},
      {"modules", Json::array()}};
  for (const auto& candidate : costs.candidates) {
    json["candidates"].push_back(
        candidate ? to_json(*candidate) : Json(nullptr));
  }
  for (const auto& module : costs.modules) {
    Json losses = Json::array();
    for (const double loss : module.losses) {
      losses.push_back(std::isnan(loss) ? Json(nullptr) : Json(loss));
    }
    json["modules"].push_back(
        {{"path", module.path},
         {"parameters", module.parameters},
         {"losses", std::move(losses)}});
  }
  return json;
}

RoundingCosts costs_from_json(const Json& json, const std::string& origin) {
  RoundingCosts costs;
  costs.tokens = count_of(json, "tokens", origin);
  for (const Json& candidate : field(json, "candidates", origin)) {
    costs.candidates.push_back(
        candidate.is_null()
            ? Candidate()
            : Candidate(quant_spec_from_json(JsonView(candidate, origin))));
  }
  for (const Json& entry : field(json, "modules", origin)) {
    const Json& path = field(entry, "path", origin);
    if (!path.is_string()) {
      broken(origin, "a path is not text");
    }
    ModuleCosts module{
        path.get<std::string>(), count_of(entry, "parameters", origin), {}};
    for (const Json& loss : field(entry, "losses", origin)) {
      module.losses.push_back(loss_from(loss, origin));
    }
    if (module.losses.size() != costs.candidates.size()) {
      broken(origin, module.path + " has another number of losses");
    }
    costs.modules.push_back(std::move(module));
  }
  return costs;
}

}  // namespace pennyweight
