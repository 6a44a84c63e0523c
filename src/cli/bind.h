#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/options.h"

namespace pennyweight::cli {

/// The options visitor that turns a struct of options into flags of `app`.
/// The struct must outlive the parse.
class FlagBinder {
 public:
  explicit FlagBinder(CLI::App& app) : app_(app) {}

  /// What is on by default is switched off by --no-NAME.
  void operator()(const OptionInfo& info, bool& value) {
    auto names = flags(info);
    auto help = info.help;
    if (value) {
      names += ",!--no-" + info.name;
      help += " (default; --no-" + info.name + " switches it off)";
    }
    finish(info, app_.add_flag(names, value, help));
  }
  template <class T>
  void operator()(const OptionInfo& info, T& value) {
    auto* option = app_.add_option(flags(info), value, info.help);
    finish(info, option->capture_default_str());
  }
  template <class T>
  void operator()(const OptionInfo& info, std::optional<T>& value) {
    finish(info, app_.add_option(flags(info), value, info.help));
  }

 private:
  static std::string flags(const OptionInfo& info) {
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

  static void finish(const OptionInfo& info, CLI::Option* option) {
    option->required(info.required);
    if (!info.choices.empty()) {
      option->check(CLI::IsMember(info.choices));
    }
  }

  CLI::App& app_;
};

template <class Options>
void bind_flags(CLI::App& app, Options& options) {
  Options::visit(options, FlagBinder(app));
}

}  // namespace pennyweight::cli
