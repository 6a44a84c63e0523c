#include "core/options.h"

#include "core/json.h"

namespace pennyweight {

Json visited_to_json(
    const std::function<void(const OptionSink&)>& visit,
    bool results_only) {
  Json json = Json::object();
  visit([&](const OptionInfo& info, OptionRef field) {
    std::visit(
        [&](auto* value) {
          detail::ToJson{json, results_only}(info, *value);
        },
        field);
  });
  return json;
}

}  // namespace pennyweight
