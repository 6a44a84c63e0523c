#include "format/quant_plan.h"

#include <algorithm>
#include <cctype>

#include "core/error.h"
#include "core/json.h"
#include "core/text.h"

namespace pennyweight {

namespace {

struct Recipe {
  std::string name;
  int low_bits;
  int high_bits;
};

const std::vector<Recipe>& recipes() {
  static const std::vector<Recipe> kRecipes{
      {"mixed_2_6", 2, 6},
      {"mixed_3_4", 3, 4},
      {"mixed_3_6", 3, 6},
      {"mixed_4_6", 4, 6},
  };
  return kRecipes;
}

const Recipe& find_recipe(const std::string& name) {
  for (const auto& recipe : recipes()) {
    if (recipe.name == name) {
      return recipe;
    }
  }
  throw argument_error(
      "quantization", "there is no recipe \"" + one_line(name, 40) + "\"");
}

// The first number in the path is the block's; 0 outside the blocks.
int block_index(const std::string& path) {
  for (const auto& part : split(path, '.')) {
    if (!part.empty() && part.size() < 8 &&
        std::ranges::all_of(
            part, [](unsigned char c) { return std::isdigit(c); })) {
      return std::stoi(part);
    }
  }
  return 0;
}

// The rule of mlx_lm.convert: v_proj, down_proj and the head get more bits in
// the first and last eighth of the blocks and in every third between.
int recipe_bits(const Recipe& recipe, const std::string& path, int num_blocks) {
  int index = block_index(path);
  bool more = index < num_blocks / 8 || index >= 7 * num_blocks / 8 ||
      (index >= num_blocks / 8 && (index - num_blocks / 8) % 3 == 2);
  auto holds = [&path](const char* part) {
    return path.find(part) != std::string::npos;
  };
  bool value = holds("v_proj") || holds("v_a_proj") || holds("v_b_proj");
  bool high = holds("lm_head") || (more && (value || holds("down_proj")));
  return high ? recipe.high_bits : recipe.low_bits;
}

}  // namespace

const QuantPlan::Entry& QuantPlan::at(const std::string& path) const {
  auto it = modules.find(path);
  if (it == modules.end()) {
    throw argument_error(
        "quantization", "the plan has no module " + one_line(path, 120));
  }
  return it->second;
}

const std::vector<std::string>& quant_recipes() {
  static const std::vector<std::string> kNames = [] {
    std::vector<std::string> names;
    for (const auto& recipe : recipes()) {
      names.push_back(recipe.name);
    }
    return names;
  }();
  return kNames;
}

QuantPlan make_plan(
    const std::vector<PlannedModule>& modules,
    const QuantSpec& common,
    const std::string& recipe,
    int num_blocks) {
  QuantPlan plan{common, {}};
  for (const auto& module : modules) {
    auto& entry = plan.modules[module.path];
    const QuantSpec& wanted =
        module.own && recipe.empty() ? *module.own : common;
    if (!module.packable) {
      entry.reason = kNotPackable;
      continue;
    }
    if (module.own_kept && recipe.empty()) {
      entry.reason = kClassKeeps;
      continue;
    }
    // What the class asks for instead, mlx_lm.convert gives only to what the
    // common groups divide.
    const QuantSpec& divides = fits(common, module.in) ? wanted : common;
    if (!fits(divides, module.in)) {
      entry.reason = "rows of " + std::to_string(module.in) +
          " weights don't divide into groups of " +
          std::to_string(divides.group_size);
      continue;
    }
    entry.spec = wanted;
    if (!recipe.empty()) {
      entry.spec->bits =
          recipe_bits(find_recipe(recipe), module.path, num_blocks);
    }
  }
  return plan;
}

Json to_json(const QuantPlan& plan) {
  Json json = to_json(plan.common);
  for (const auto& [path, entry] : plan.modules) {
    if (!entry.spec) {
      json[path] = false;
    } else if (*entry.spec != plan.common) {
      json[path] = to_json(*entry.spec);
    }
  }
  return json;
}

}  // namespace pennyweight
