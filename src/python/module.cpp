// pennyweight._core: the functions by which the Python package runs the
// program. Its users see only python/pennyweight.

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>
#include <vector>

#include "cli/run.h"
#include "commands/command.h"
#include "core/json_text.h"
#include "core/version.h"
#include "python/options.h"
#include "python/run_command.h"
#include "python/text.h"

namespace pennyweight::python {

namespace {

using WordList = nb::typed<nb::list, nb::str>;

nb::typed<nb::list, nb::typed<nb::dict, nb::str, nb::any>> describe_commands() {
  nb::list all;
  for (const Command& command : commands()) {
    nb::dict own;
    own["name"] = command.name;
    own["summary"] = command.summary;
    own["examples"] = command.examples;
    own["options"] = describe_options(command);
    own["in_package"] = command.in_package;
    all.append(own);
  }
  return all;
}

// argv for a command line that is given without the program's name. `words`
// must outlive it.
std::vector<const char*> arguments(const std::vector<std::string>& words) {
  std::vector<const char*> all{"pennyweight"};
  for (const auto& word : words) {
    all.push_back(word.c_str());
  }
  return all;
}

std::vector<std::string> encoded(WordList words) {
  std::vector<std::string> all;
  for (const nb::handle word : words) {
    all.push_back(from_str(word));
  }
  return all;
}

int run_line(WordList words) {
  const auto texts = encoded(words);
  const auto argv = arguments(texts);
  nb::gil_scoped_release released;
  return cli::run(static_cast<int>(argv.size()), argv.data());
}

std::optional<std::string> names_of_line(WordList words) {
  const auto texts = encoded(words);
  const auto argv = arguments(texts);
  const auto names =
      cli::asked_names(static_cast<int>(argv.size()), argv.data());
  if (!names) {
    return std::nullopt;
  }
  return to_text(*names);
}

}  // namespace

}  // namespace pennyweight::python

NB_MODULE(_core, module) {
  using namespace pennyweight::python;
  module.def("version", &pennyweight::version, "The program's version.");
  module.def(
      "commands",
      &describe_commands,
      "Every command, and what the option visitor tells of its options.");
  module.def(
      "run",
      &run_command,
      nb::arg("command"),
      nb::arg("options"),
      nb::arg("fetched"),
      nb::arg("on_event").none(),
      nb::arg("on_warning"),
      "Runs a command in this process; its report as JSON text.");
  module.def(
      "main",
      &run_line,
      nb::arg("words"),
      "Runs a command line in this process, which is then its own; the exit "
      "code.");
  module.def(
      "hub_names",
      &hub_names_of,
      nb::arg("command"),
      nb::arg("options"),
      "The hub ids that a call of run() names, as JSON text.");
  module.def(
      "hub_names_of_line",
      &names_of_line,
      nb::arg("words"),
      "The hub ids that a command line names, as JSON text, or None.");
}
