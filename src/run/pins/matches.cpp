#include "run/pins/matches.h"

#include <algorithm>
#include <set>

#include "core/error.h"
#include "core/text.h"
#include "run/pins/pattern.h"

namespace pennyweight {

namespace {

constexpr const char* kWeight = ".weight";
constexpr const char* kHead = "lm_head";

std::string without_weight(const std::string& tensor) {
  return tensor.ends_with(kWeight)
      ? tensor.substr(0, tensor.size() - std::string(kWeight).size())
      : tensor;
}

NamedModule named(const Model& model, const ModuleSpec& module) {
  NamedModule own{module, {module.path}, {}};
  if (module.tied) {
    own.names.push_back(kHead);
  }
  if (module.count > 0) {
    own.parts.emplace_back();
    for (int64_t i = 0; i < module.count; ++i) {
      own.parts.back().push_back(part_path(module.path, i));
    }
  }
  const auto it = model.spec.sources.find(module.path + kWeight);
  if (it == model.spec.sources.end() ||
      !model.checkpoint.contains(it->second.part(0))) {
    return own;
  }
  const TensorSource& source = it->second;
  if (source.count == 0) {
    own.names.push_back(without_weight(source.name));
    return own;
  }
  own.parts.emplace_back();
  for (int64_t i = 0; i < source.count; ++i) {
    own.parts.back().push_back(without_weight(source.part(i)));
  }
  return own;
}

bool matches_any(
    const std::string& pattern,
    const std::vector<std::string>& names) {
  return std::ranges::any_of(names, [&](const std::string& name) {
    return matches_path(pattern, name);
  });
}

bool matches_each(
    const std::string& pattern,
    const std::vector<std::string>& names) {
  return std::ranges::all_of(names, [&](const std::string& name) {
    return matches_path(pattern, name);
  });
}

bool has_role(const ModuleSpec& module, ModuleSpec::Role role) {
  return module.role == role || (module.tied && role == ModuleSpec::Role::head);
}

std::set<std::string> components(const std::string& path) {
  const auto parts = split(path, '.');
  return {parts.begin(), parts.end()};
}

[[noreturn]] void
refuse(const WidthPin& pin, const std::string& where, const std::string& what) {
  throw argument_error(where, pin.said + " " + what);
}

}  // namespace

NamedModules::NamedModules(const Model& model) : model_(model) {
  for (const ModuleSpec& module : list_stored_modules(model.spec)) {
    modules_.push_back(named(model, module));
  }
}

std::vector<const NamedModule*> NamedModules::find(
    const WidthPin& pin,
    const std::string& where) const {
  std::vector<const NamedModule*> found;
  const NamedModule* in_parts = nullptr;
  for (const NamedModule& own : modules_) {
    if (pin.role) {
      if (has_role(own.module, *pin.role)) {
        found.push_back(&own);
      }
      continue;
    }
    const bool whole = matches_any(pin.pattern, own.names) ||
        std::ranges::any_of(own.parts, [&](const auto& parts) {
                         return matches_each(pin.pattern, parts);
                       });
    if (whole) {
      found.push_back(&own);
    } else if (
        !in_parts && std::ranges::any_of(own.parts, [&](const auto& parts) {
          return matches_any(pin.pattern, parts);
        })) {
      in_parts = &own;
    }
  }
  if (!found.empty()) {
    return found;
  }
  if (in_parts) {
    refuse(
        pin,
        where,
        "is about some of the " + std::to_string(in_parts->module.count) +
            " matrices of " + in_parts->module.path +
            ", which mlx-lm packs alike, as one stack; name the stack");
  }
  const bool carried =
      std::ranges::any_of(model_.tensors.all(), [&](const auto& tensor) {
        return is_among(tensor.first, model_.spec.carried) &&
            matches_path(pin.pattern, module_of(tensor.first));
      });
  if (carried && pin.kind == WidthPin::Kind::keep) {
    return {};
  }
  if (carried) {
    refuse(
        pin,
        where,
        "is about what is no part of the language model, which goes to the "
        "output as it is");
  }
  refuse_nothing(pin, where);
}

void NamedModules::refuse_nothing(const WidthPin& pin, const std::string& where)
    const {
  if (pin.role) {
    std::vector<std::string> roles;
    for (const NamedModule& own : modules_) {
      const auto name = role_name(own.module.role);
      if (std::ranges::count(roles, name) == 0) {
        roles.push_back(name);
      }
    }
    refuse(
        pin,
        where,
        "matches nothing: the model has no " + role_name(*pin.role) +
            ", only " + joined(roles));
  }
  for (const auto& [name, info] : model_.tensors.all()) {
    const auto module = module_of(name);
    if (matches_path(pin.pattern, module) || matches_path(pin.pattern, name)) {
      const bool is_module = std::ranges::any_of(
          modules_, [&](const auto& own) { return own.module.path == module; });
      refuse(
          pin,
          where,
          is_module
              ? "matches " + name + ", a tensor; name its module, " + module
              : "matches " + name +
                  ", which is no matrix, and which mlx-lm never packs");
    }
  }
  refuse(
      pin,
      where,
      "matches no module; there are " + nearest_paths(pin.pattern) +
          " and others (inspect lists them)");
}

// Three at most, those that share most with the pattern.
std::string NamedModules::nearest_paths(const std::string& pattern) const {
  const auto wanted = components(pattern);
  std::vector<std::pair<size_t, std::string>> ranked;
  for (const NamedModule& own : modules_) {
    size_t shared = 0;
    for (const auto& part : components(own.module.path)) {
      shared += wanted.contains(part) ? 1 : 0;
    }
    ranked.emplace_back(shared, own.module.path);
  }
  std::ranges::stable_sort(ranked, std::ranges::greater(), [](const auto& one) {
    return one.first;
  });
  std::vector<std::string> names;
  for (size_t i = 0; i < std::min<size_t>(3, ranked.size()); ++i) {
    names.push_back(ranked[i].second);
  }
  return joined(names);
}

}  // namespace pennyweight
