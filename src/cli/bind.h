#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/options.h"

namespace CLI {
class App;
}

namespace pennyweight::cli {

/// The options visitor that turns a struct of options into flags of `app`.
/// The struct must outlive the parse.
class FlagBinder {
 public:
  explicit FlagBinder(CLI::App& app) : app_(app) {}

  /// For the types that core/options.h names; bind.cpp holds them, so that
  /// the parser is compiled once and not for each command.
  template <class T>
  void operator()(const OptionInfo& info, T& value);

 private:
  CLI::App& app_;
};

template <class Options>
void bind_flags(CLI::App& app, Options& options) {
  Options::visit(options, FlagBinder(app));
}

}  // namespace pennyweight::cli
