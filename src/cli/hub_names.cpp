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

Json hub_names(const CLI::App& command) {
  Json models = Json::array();
  Json datasets = Json::array();
  std::string data;
  bool reads_text = false;
  for (const CLI::Option* option : command.get_options()) {
    const auto type = option->get_type_name();
    const auto value = option->empty() ? "" : option->results().front();
    if (type == "MODEL" && !exists(value) && parse_hub_name(value)) {
      models.push_back(value);
    } else if (type == "DATA") {
      reads_text = command.get_name() != "plan";  // which names what is to be
      data = value.empty() ? data : value;
    } else if (type == "RECIPE" && !value.empty() && data.empty()) {
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

}  // namespace pennyweight::cli
