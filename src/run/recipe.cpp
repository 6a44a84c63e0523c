#include "run/recipe.h"

#include <algorithm>
#include <cctype>

#include "core/error.h"
#include "core/json.h"
#include "kernels/dispatch.h"

namespace pennyweight {

namespace {

constexpr int64_t kMostSequences = 1 << 20;

Candidate parse_affine(const std::string& text, const std::string& origin) {
  const auto found = parse_candidates(text);
  if (found.size() != 1) {
    throw corrupt_error(
        "recipe", origin + ": '" + one_line(text, 40) + "' is not one width");
  }
  return found.front();
}

// A published width has its mode behind it, which no candidate has.
Candidate parse_width(const std::string& text, const std::string& origin) {
  const auto colon = text.rfind(':');
  const auto mode = colon == text.npos ? "" : text.substr(colon + 1);
  if (mode.empty() || !std::isalpha(static_cast<unsigned char>(mode[0]))) {
    return parse_affine(text, origin);
  }
  try {
    const auto width = parse_affine(text.substr(0, colon), origin);
    const QuantSpec& spec = width.value_or(QuantSpec{});
    return make_quant_spec(mode, spec.bits, spec.group_size);
  } catch (const Error& error) {
    throw corrupt_error("recipe", origin + ": " + reason_of(error));
  }
}

std::vector<std::string> read_stages(const JsonView& view) {
  const Json* list = view.find("stages");
  std::vector<std::string> stages;
  if (list && list->is_array()) {
    for (const auto& stage : *list) {
      if (stage.is_string()) {
        stages.push_back(stage.get<std::string>());
      }
    }
  }
  try {
    const auto chain = make_chain(stages, view.origin() + ": \"stages\"");
    const bool distills = chain.back().kind == ChainStage::Kind::distill;
    if (chain.size() > (distills ? 2u : 1u)) {
      throw corrupt_error(
          "recipe",
          view.origin() + ": \"stages\" has more than one that rounds");
    }
  } catch (const Error& error) {
    throw corrupt_error("recipe", reason_of(error));
  }
  return stages;
}

}  // namespace

Json to_json(const Recipe& recipe) {
  Json widths = Json::object();
  for (const auto& [path, width] : recipe.widths) {
    widths[path] = candidate_name(width);
  }
  auto data = options_to_json(recipe.mix);
  data["fit"] = recipe.mix_size.fit;
  data["gate"] = recipe.mix_size.gate;
  data["report"] = recipe.mix_size.report;
  data["fingerprint"] = recipe.mix_fingerprint;
  Json sizes = Json::object();
  for (const auto& size : kStageSizes) {
    if (size.least >= 0) {
      sizes[size.name] = recipe.sizes.*size.value;
    }
  }
  if (recipe.sizes.dwq_rate) {
    sizes["dwq_rate"] = *recipe.sizes.dwq_rate;
  }
  return {
      {"pennyweight", recipe.version},
      {"kernels", recipe.kernels},
      {"model",
       {{"name", recipe.model},
        {"fingerprint", recipe.model_fingerprint},
        {"assume-family", recipe.assume_family}}},
      {"target", recipe.target},
      {"pins", options_to_json(recipe.pins)},
      {"data", data},
      {"stages", recipe.stages},
      {"sizes", sizes},
      {"widths", widths}};
}

Recipe read_recipe(const std::filesystem::path& file) {
  const auto origin = file.string();
  const auto json = read_json(file, size_t{16} << 20);
  const JsonView view(json, origin);
  const auto model = view.object("model");
  const auto data = view.object("data");
  const auto sizes = view.object("sizes");
  const auto widths = view.object("widths");
  if (!model || !data || !sizes || !widths) {
    throw corrupt_error(
        "recipe",
        origin +
            " is no recipe of pennyweight: it lacks model, data, sizes or "
            "widths");
  }
  Recipe recipe;
  recipe.version = view.string("pennyweight");
  recipe.kernels = view.string_or("kernels", "");
  recipe.model = model->string("name");
  recipe.model_fingerprint = model->string("fingerprint");
  recipe.assume_family = model->string_or("assume-family", "");
  options_from_json(recipe.mix, data->json(), origin);
  const auto count = [](const JsonView& from, const char* name, int least) {
    return static_cast<int>(from.integer(name, least, kMostSequences));
  };
  recipe.mix_size = {
      count(*data, "fit", 1),
      count(*data, "gate", 1),
      count(*data, "report", 1)};
  recipe.mix_fingerprint = data->string("fingerprint");
  if (const auto target = view.object("target")) {
    recipe.target = target->json();
  }
  if (const auto pins = view.object("pins")) {
    options_from_json(recipe.pins, pins->json(), origin);
  }
  recipe.stages = read_stages(view);
  recipe.sizes.cost_sequences = 0;
  for (const auto& size : kStageSizes) {
    if (size.least >= 0) {
      recipe.sizes.*size.value = count(*sizes, size.name, size.least);
    }
  }
  if (sizes->has("dwq_rate")) {
    recipe.sizes.dwq_rate = sizes->number("dwq_rate");
  }
  for (const auto& [path, width] : widths->json().items()) {
    if (!width.is_string()) {
      throw corrupt_error(
          "recipe",
          origin + ": the width of " + one_line(path, 80) + " is no text");
    }
    recipe.widths[path] = parse_width(width.get<std::string>(), origin);
  }
  return recipe;
}

std::vector<std::string> differences(
    const Recipe& recipe,
    const std::filesystem::path& file,
    const std::string& version) {
  std::vector<std::string> notes;
  if (recipe.version != version) {
    notes.push_back(
        file.string() + " was written by pennyweight " + recipe.version +
        ", this is " + version + ": the bytes may not be the same");
  }
  const auto kind = kernels::kernel_kind();
  if (!recipe.kernels.empty() && recipe.kernels != kind) {
    notes.push_back(
        file.string() + " was made by kernels of another kind (" +
        one_line(recipe.kernels, 80) + "; here: " + kind +
        "), which round otherwise: the bytes will not be the same");
  }
  return notes;
}

bool is_comparable(const std::string& fingerprint) {
  constexpr size_t kOldDigits = 16;
  return fingerprint.size() != kOldDigits;
}

WidthPlan recipe_widths(const Model& model, const Recipe& recipe) {
  const auto stored = list_stored_modules(model.spec);
  std::vector<Candidate> wanted;
  std::vector<Candidate> candidates;
  for (const ModuleSpec& module : stored) {
    const auto it = recipe.widths.find(module.path);
    if (it == recipe.widths.end()) {
      throw argument_error(
          "recipe", "the recipe has no width for " + module.path);
    }
    wanted.push_back(it->second);
    if (std::ranges::count(candidates, it->second) == 0) {
      candidates.push_back(it->second);
    }
  }
  if (stored.size() != recipe.widths.size()) {
    throw argument_error(
        "recipe",
        "the recipe has widths of " + std::to_string(recipe.widths.size()) +
            " modules, the model has " + std::to_string(stored.size()));
  }
  WidthChooser widths(model, candidates);
  for (const ModuleSpec& module : stored) {
    widths.add(module, std::vector<double>(candidates.size(), 0.0));
  }
  return widths.plan_for(wanted);
}

}  // namespace pennyweight
