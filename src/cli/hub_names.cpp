#include "cli/hub_names.h"

#include <CLI/CLI.hpp>
#include <filesystem>

#include "core/error.h"
#include "core/hub_name.h"
#include "core/json.h"
#include "run/recipe.h"
#include "text/data_source.h"

namespace pennyweight::cli {

namespace {

bool exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

std::string recipe_data(const std::string& path) {
  try {
    return read_recipe(path).mix.data_path;
  } catch (const Error&) {
    return "";  // the command itself will say what is wrong with it
  }
}

}  // namespace

Json hub_names(
    const std::string& command,
    const std::vector<NamedValue>& values) {
  Json models = Json::array();
  Json datasets = Json::array();
  std::string data;
  bool reads_text = false;
  for (const auto& [takes, value] : values) {
    if (takes == "MODEL" && !exists(value) && parse_hub_name(value)) {
      models.push_back(value);
    } else if (takes == "DATA") {
      reads_text = command != "plan";  // which names what is to be
      data = value.empty() ? data : value;
    } else if (takes == "RECIPE" && !value.empty() && data.empty()) {
      data = recipe_data(value);
    }
  }
  if (reads_text && !exists(data) && is_dataset_id(data)) {
    datasets.push_back(data);
  }
  return {
      {"model", models},
      {"dataset", datasets},
      {"text", reads_text && data.empty()}};
}

Json hub_names(const CLI::App& command) {
  std::vector<NamedValue> values;
  for (const CLI::Option* option : command.get_options()) {
    values.emplace_back(
        option->get_type_name(),
        option->empty() ? "" : option->results().front());
  }
  auto names = hub_names(command.get_name(), values);
  const auto* stream = command.get_option_no_throw("--stream");
  if (stream && stream->count() > 0) {
    names["stream"] = true;
  }
  return names;
}

}  // namespace pennyweight::cli
