#pragma once

#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/error.h"
#include "core/json.h"

namespace pennyweight {

/// What an option says of itself. Options are plain structs with defaults in
/// place and one function
///
///   template <class Self, class Visitor>
///   static void visit(Self& self, Visitor&& option) {
///     option({.name = "q-bits", .help = "Bits a weight"}, self.q_bits);
///   }
///
/// The same visit feeds flags, --help, recipes, reports and fingerprints.
/// Fields may be bool, int, int64_t, uint64_t, double, std::string,
/// std::vector<std::string> and std::optional of these.
struct OptionInfo {
  std::string name;
  std::string help;
  std::string short_name{};
  std::vector<std::string> aliases{};
  std::vector<std::string> choices{};
  bool positional = false;
  bool required = false;
  /// False for what can't change the result (paths, progress, limits): left
  /// out of the fingerprint.
  bool affects_result = true;
  /// For those who study the method: listed apart by --help.
  bool advanced = false;
  /// What the value names, as --help shows it: MODEL, DATA, RECIPE or FOLDER.
  /// What of the first three is a hub id is fetched before the command starts
  /// (run/fetched.h).
  std::string takes{};
  /// What the flag by itself stands for, where its value may be left out.
  std::string implied{};
};

/// A field that an option sets.
using OptionRef = std::variant<
    bool*,
    int*,
    int64_t*,
    uint64_t*,
    double*,
    std::string*,
    std::vector<std::string>*,
    std::optional<int>*,
    std::optional<int64_t>*,
    std::optional<uint64_t>*,
    std::optional<double>*,
    std::optional<std::string>*>;

/// A visitor for options whose struct is not known.
using OptionSink = std::function<void(const OptionInfo& info, OptionRef field)>;

template <class Options>
void visit_options(Options& options, const OptionSink& sink) {
  Options::visit(options, [&](const OptionInfo& info, auto& field) {
    sink(info, &field);
  });
}

namespace detail {

struct ToJson {
  Json& json;
  bool results_only;

  template <class T>
  void operator()(const OptionInfo& info, const T& value) {
    if (results_only && !info.affects_result) {
      return;
    }
    json[info.name] = value;
  }
  template <class T>
  void operator()(const OptionInfo& info, const std::optional<T>& value) {
    if (results_only && !info.affects_result) {
      return;
    }
    json[info.name] = value ? Json(*value) : Json(nullptr);
  }
};

struct FromJson {
  const Json& json;
  const std::string& origin;

  template <class T>
  void operator()(const OptionInfo& info, T& value) {
    if (auto it = json.find(info.name); it != json.end()) {
      read(info, *it, value);
    }
  }
  template <class T>
  void operator()(const OptionInfo& info, std::optional<T>& value) {
    auto it = json.find(info.name);
    if (it == json.end()) {
      return;
    }
    value.reset();
    if (!it->is_null()) {
      read(info, *it, value.emplace());
    }
  }

 private:
  template <class T>
  void read(const OptionInfo& info, const Json& from, T& value) {
    try {
      value = from.get<T>();
    } catch (const nlohmann::json::exception&) {
      throw corrupt_error(
          "options", origin + ": \"" + info.name + "\" has the wrong type");
    }
  }
};

}  // namespace detail

/// Every option as JSON; `results_only` leaves out what can't change the
/// result, which makes the dump a fingerprint of the settings.
template <class Options>
Json options_to_json(const Options& options, bool results_only = false) {
  Json json = Json::object();
  Options::visit(options, detail::ToJson{json, results_only});
  return json;
}

/// The same of options whose struct is not known: `visit` hands each to a sink.
Json visited_to_json(
    const std::function<void(const OptionSink&)>& visit,
    bool results_only = false);

/// Overwrites the options named in `json`; a wrong type is a corrupt Error.
template <class Options>
void options_from_json(
    Options& options,
    const Json& json,
    const std::string& origin) {
  Options::visit(options, detail::FromJson{json, origin});
}

}  // namespace pennyweight
