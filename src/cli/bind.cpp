#include "cli/bind.h"

#include <CLI/CLI.hpp>
#include <cstdint>

namespace pennyweight::cli {

namespace {

std::string flags(const OptionInfo& info) {
  std::string text;
  if (!info.short_name.empty()) {
    text = "-" + info.short_name + ",";
  }
  text += "--" + info.name;
  for (const auto& alias : info.aliases) {
    text += ",--" + alias;
  }
  // A positional may also be given by its flag.
  return info.positional ? info.name + "," + text : text;
}

/// What is on by default is switched off by --no-NAME.
CLI::Option* add(CLI::App& app, const OptionInfo& info, bool& value) {
  auto names = flags(info);
  auto help = info.help;
  if (value) {
    names += ",!--no-" + info.name;
    help += " (default; --no-" + info.name + " switches it off)";
  }
  return app.add_flag(names, value, help);
}

template <class T>
CLI::Option* add(CLI::App& app, const OptionInfo& info, T& value) {
  return app.add_option(flags(info), value, info.help)->capture_default_str();
}

/// One text a flag, which may be given again and again.
CLI::Option*
add(CLI::App& app, const OptionInfo& info, std::vector<std::string>& value) {
  return app.add_option(flags(info), value, info.help)->allow_extra_args(false);
}

template <class T>
CLI::Option*
add(CLI::App& app, const OptionInfo& info, std::optional<T>& value) {
  return app.add_option(flags(info), value, info.help);
}

}  // namespace

OptionSink bind_flags(CLI::App& app) {
  return [&app](const OptionInfo& info, OptionRef field) {
    auto* option =
        std::visit([&](auto* value) { return add(app, info, *value); }, field);
    option->required(info.required);
    if (info.advanced) {
      option->group(kAdvanced);
    }
    if (!info.takes.empty()) {
      option->type_name(info.takes);
    }
    if (!info.implied.empty()) {
      option->expected(0, 1)->default_str(info.implied);
    }
    if (!info.choices.empty()) {
      option->check(CLI::IsMember(info.choices));
    }
  };
}

}  // namespace pennyweight::cli
