#include "method/plan_modules.h"

#include <map>

namespace pennyweight {

void keep_published(const Model& model, QuantPlan& plan) {
  for (const auto& [path, spec] : model.quantized) {
    plan.modules[path] = {spec, "", true};
  }
}

QuantPlan plan_modules(
    const Model& model,
    const QuantSpec& linears,
    const QuantSpec& embedding,
    const QuantSpec& head) {
  QuantPlan plan{linears, {}};
  const std::map<ModuleSpec::Kind, QuantSpec> specs{
      {ModuleSpec::Kind::linear, linears},
      {ModuleSpec::Kind::router, router_spec()},
      {ModuleSpec::Kind::embedding, embedding},
      {ModuleSpec::Kind::head, head}};
  for (const ModuleSpec& module : list_stored_modules(model.spec)) {
    const QuantSpec& spec = specs.at(module.kind);
    auto& entry = plan.modules[module.path];
    if (!module.packable) {
      entry.reason = kNotPackable;
    } else if (fits(spec, module.in)) {
      entry.spec = spec;
    } else {
      entry.reason = "rows of " + std::to_string(module.in) +
          " weights don't divide into groups of " +
          std::to_string(spec.group_size);
    }
  }
  keep_published(model, plan);
  return plan;
}

}  // namespace pennyweight
