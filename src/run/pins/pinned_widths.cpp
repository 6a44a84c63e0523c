#include "run/pins/pinned_widths.h"

#include <algorithm>

#include "core/error.h"
#include "run/pins/matches.h"

namespace pennyweight {

namespace {

constexpr int kOfferedBits[] = {2, 3, 4, 5, 6, 8};

[[noreturn]] void refuse(const std::string& where, const std::string& what) {
  throw argument_error(where, what);
}

// The groups that divide rows of `in`, for who is to choose another.
std::string fitting_groups(int64_t in) {
  std::string groups;
  for (const int group : {32, 64, 128}) {
    if (fits(make_quant_spec("affine", 8, group), in)) {
      groups += (groups.empty() ? "" : ", ") + std::to_string(group);
    }
  }
  return groups;
}

std::string about_tie(const ModuleSpec& module) {
  return module.tied ? ", which is the head, too" : "";
}

}  // namespace

bool WidthRule::allows(const std::optional<QuantSpec>& spec) const {
  if (keep || pinned) {
    return spec == pinned;
  }
  return !spec || spec->bits >= at_least;
}

/// Goes through the pins, one after the other.
class PinnedWidths::Settler {
 public:
  Settler(PinnedWidths& widths, const Model& model, const PinScope& scope)
      : widths_(widths), scope_(scope), modules_(model) {}

  void settle(const WidthPin& pin) {
    Use use{pin, "", 0, 0};
    std::optional<QuantSpec> spec;
    if (pin.kind == WidthPin::Kind::pin) {
      spec = width_of(pin);
      use.width = width_name(*spec);
    } else if (pin.kind == WidthPin::Kind::at_least) {
      use.width = std::to_string(pin.bits);
    }
    int64_t without = 0;
    std::string reason;
    std::string first;
    const auto matched = modules_.find(pin, scope_.where);
    if (matched.empty()) {
      widths_.notes_.push_back(
          pin.said +
          " is about no part of the language model: that goes to "
          "the output as it is anyway");
    }
    for (const NamedModule* own : matched) {
      const ModuleSpec& module = own->module;
      if (const auto why = unpinnable(pin, module, spec); !why.empty()) {
        first = without++ == 0 ? module.path : first;
        reason = why;
        continue;
      }
      require_known(pin, module, spec);
      add(pin, module, spec);
      ++use.modules;
      use.parameters +=
          module.out * module.in * std::max<int64_t>(1, module.count);
    }
    if (without > 0 && use.modules == 0) {
      refuse(scope_.where, pin.said + ": " + first + " " + reason);
    }
    if (without > 0) {
      widths_.notes_.push_back(
          pin.said + " does nothing to " + first +
          (without > 1 ? " and " + std::to_string(without - 1) + " more" : "") +
          ", since it " + reason);
    }
    widths_.uses_.push_back(std::move(use));
  }

  // What can be said of a module only when all pins are known.
  void check() const {
    for (const auto& [path, found] : found_) {
      check(path, found);
    }
    const auto stays = [&](const NamedModule& own) {
      const auto* rule = widths_.rule(own.module.path);
      return !own.module.packable || (rule && rule->keep);
    };
    if (std::ranges::all_of(modules_.all(), stays)) {
      refuse(
          scope_.where,
          "--keep leaves every module unquantized, so that there is nothing to "
          "do");
    }
  }

 private:
  // Of one module, what each flag that is about it says.
  struct Found {
    const WidthPin* pinned = nullptr;
    const WidthPin* at_least = nullptr;
    const WidthPin* keep = nullptr;
    bool tied = false;
  };

  QuantSpec width_of(const WidthPin& pin) const {
    const auto mode = pin.mode.value_or(scope_.common.mode);
    const bool as_common = !pin.mode || *pin.mode == scope_.common.mode;
    const auto group = pin.group_size || !as_common || mode != "affine"
        ? pin.group_size
        : std::optional(scope_.common.group_size);
    QuantSpec spec;
    try {
      spec = make_quant_spec(mode, pin.bits, group);
    } catch (const Error& error) {
      refuse(
          scope_.where,
          pin.said + ": " + reason_of(error) +
              (pin.mode || mode == "affine"
                   ? ""
                   : "; a width of another mode is BITS:GROUP:MODE, such as " +
                       std::to_string(pin.bits) + ":64:affine"));
    }
    return spec;
  }

  // A published width is one that the command need not know.
  void require_known(
      const WidthPin& pin,
      const ModuleSpec& module,
      const std::optional<QuantSpec>& spec) const {
    if (scope_.affine && spec && spec->mode != "affine" && !module.published) {
      refuse(
          scope_.where,
          pin.said + ": " + scope_.where +
              " knows affine widths alone; gptq and convert have the others");
    }
  }

  // Why a module has no width to be pinned; empty: it has one.
  std::string unpinnable(
      const WidthPin& pin,
      const ModuleSpec& module,
      const std::optional<QuantSpec>& spec) const {
    if (!module.packable) {
      return pin.kind == WidthPin::Kind::keep
          ? ""
          : "stays unquantized: " + std::string(kNotPackable);
    }
    if (spec && fitting_groups(module.in).empty()) {
      return "stays unquantized: its rows of " + std::to_string(module.in) +
          " weights divide into no group";
    }
    const auto& published = module.published;
    const bool is_so = published &&
        (spec ? *spec == *published
              : pin.kind == WidthPin::Kind::at_least &&
                 published->bits >= pin.bits);
    return !published || is_so
        ? ""
        : "is published packed as " + width_name(*published) + ", and stays so";
  }

  void add(
      const WidthPin& pin,
      const ModuleSpec& module,
      const std::optional<QuantSpec>& spec) {
    WidthRule& rule = widths_.rules_[module.path];
    if (module.published) {
      rule.said = pin.said;  // what it asks for is so
      return;
    }
    Found& found = found_[module.path];
    found.tied = module.tied;
    switch (pin.kind) {
      case WidthPin::Kind::pin:
        require_fit(pin, module, *spec);
        if (rule.pinned && *rule.pinned != *spec) {
          refuse(
              scope_.where,
              found.pinned->said + " and " + pin.said + " give two widths to " +
                  module.path + about_tie(module));
        }
        rule.pinned = spec;
        found.pinned = &pin;
        rule.said = pin.said;
        break;
      case WidthPin::Kind::at_least:
        if (pin.bits > rule.at_least) {
          rule.at_least = pin.bits;
          found.at_least = &pin;
          rule.said = rule.pinned ? rule.said : pin.said;
        }
        break;
      case WidthPin::Kind::keep:
        rule.keep = true;
        found.keep = &pin;
        rule.said = pin.said;
        break;
    }
  }

  void require_fit(
      const WidthPin& pin,
      const ModuleSpec& module,
      const QuantSpec& spec) const {
    if (fits(spec, module.in)) {
      return;
    }
    refuse(
        scope_.where,
        pin.said + ": groups of " + std::to_string(spec.group_size) +
            " don't divide the rows of " + std::to_string(module.in) +
            " weights of " + module.path + "; they divide into groups of " +
            fitting_groups(module.in));
  }

  void check(const std::string& path, const Found& found) const {
    const auto tie = found.tied ? ", which is the head, too" : "";
    if (found.pinned && found.keep) {
      refuse(
          scope_.where,
          found.pinned->said + " and " + found.keep->said +
              " contradict each other on " + path + tie);
    }
    if (found.pinned && found.at_least &&
        widths_.rules_.at(path).pinned->bits < found.at_least->bits) {
      refuse(
          scope_.where,
          found.pinned->said + " is below " + found.at_least->said + " on " +
              path + tie);
    }
  }

  PinnedWidths& widths_;
  const PinScope& scope_;
  NamedModules modules_;
  std::map<std::string, Found> found_;
};

PinnedWidths::PinnedWidths(
    const Model& model,
    const PinOptions& options,
    const PinScope& scope)
    : where_(scope.where) {
  const auto pins = parse_pins(options, scope.where);
  if (pins.empty()) {
    return;
  }
  Settler settler(*this, model, scope);
  for (const WidthPin& pin : pins) {
    settler.settle(pin);
  }
  settler.check();
}

const WidthRule* PinnedWidths::rule(const std::string& path) const {
  const auto it = rules_.find(path);
  return it == rules_.end() ? nullptr : &it->second;
}

std::vector<QuantSpec> PinnedWidths::widths() const {
  std::vector<QuantSpec> all;
  for (const auto& [path, rule] : rules_) {
    if (rule.pinned && std::ranges::count(all, *rule.pinned) == 0) {
      all.push_back(*rule.pinned);
    }
  }
  return all;
}

void PinnedWidths::apply(QuantPlan& plan) const {
  for (const auto& [path, rule] : rules_) {
    auto& entry = plan.modules.at(path);
    if (entry.published || entry.reason == kNotPackable) {
      continue;
    }
    if (rule.keep) {
      entry = {std::nullopt, rule.said, false, true};
    } else if (rule.pinned) {
      entry = {*rule.pinned};
    } else if (entry.spec && entry.spec->bits < rule.at_least) {
      if (entry.spec->mode != "affine") {
        refuse(
            where_,
            rule.said + ": " + entry.spec->mode + " has " +
                std::to_string(entry.spec->bits) + " bits; --pin gives " +
                path + " a width of another mode");
      }
      entry.spec->bits = *std::ranges::find_if(
          kOfferedBits, [&](int bits) { return bits >= rule.at_least; });
    }
  }
}

void PinnedWidths::require_kept(
    const QuantPlan& plan,
    const std::string& origin) const {
  for (const auto& [path, rule] : rules_) {
    const auto& spec = plan.at(path).spec;
    if (!rule.allows(spec)) {
      refuse(
          where_,
          origin + " gives " + path + " " +
              (spec ? width_name(*spec) : std::string("no width")) +
              ", which " + rule.said + " forbids");
    }
  }
}

Json PinnedWidths::json() const {
  static constexpr const char* kFlags[] = {"pin", "at-least", "keep"};
  Json all = Json::array();
  for (const Use& use : uses_) {
    all.push_back(
        {{"flag", kFlags[static_cast<size_t>(use.pin.kind)]},
         {"pattern", use.pin.pattern},
         {"width", use.width},
         {"modules", use.modules},
         {"parameters", use.parameters}});
  }
  return all;
}

std::string PinnedWidths::text() const {
  std::string lines;
  for (const Use& use : uses_) {
    lines += shown(use.pin.said) + ": " + std::to_string(use.modules) +
        (use.modules == 1 ? " module" : " modules") + "\n";
  }
  return lines;
}

std::string PinnedWidths::sentence() const {
  if (uses_.empty()) {
    return "";
  }
  std::string all;
  for (const Use& use : uses_) {
    auto said = shown(use.pin.said);
    std::ranges::replace(said, '`', '\'');
    all += (all.empty() ? "`" : ", `") + said + "`";
  }
  return " Widths that were asked for: " + all + ".";
}

}  // namespace pennyweight
