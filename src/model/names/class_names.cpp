#include "model/names/class_names.h"
#include "core/text.h"

#include <algorithm>
#include <cctype>

namespace pennyweight {

namespace {

struct ClassText {
  const char* name;
  const char* json;
};

struct ClassAlias {
  const char* model_type;
  const char* architecture;  // empty: any
  const char* name;
};

#include "model/names/class_names.inc"

// Whether a part is a number as one is counted: 7, but not 007.
bool is_number(const std::string& part) {
  return !part.empty() && part.size() < 8 && (part == "0" || part[0] != '0') &&
      std::ranges::all_of(
          part, [](unsigned char c) { return std::isdigit(c); });
}

ClassNames::Tensor read_tensor(const std::string& words) {
  using Kind = ClassNames::Tensor::Kind;
  static const std::map<std::string, Kind> kinds{
      {"linear", Kind::linear},
      {"embedding", Kind::embedding},
      {"bias", Kind::bias},
      {"parameter", Kind::parameter}};
  ClassNames::Tensor tensor;
  const auto parts = split(words, ' ');
  tensor.kind = kinds.at(parts.at(0));
  tensor.dims = std::stoul(parts.at(1));
  for (size_t i = 2; i < parts.size(); ++i) {
    const std::map<std::string, bool*> marks{
        {"always", &tensor.always},
        {"untied", &tensor.untied},
        {"kept", &tensor.kept},
        {"keeps_type", &tensor.keeps_type},
        {"thin", &tensor.thin}};
    if (const auto it = marks.find(parts[i]); it != marks.end()) {
      *it->second = true;
    } else if (parts[i].starts_with("with:")) {
      tensor.with = parts[i];
    } else if (parts[i].starts_with("kept_beside:")) {
      tensor.kept_beside = parts[i].substr(parts[i].find(':') + 1);
    } else {
      const auto width = split(parts[i], ':');
      tensor.own = make_quant_spec(
          "affine", std::stoi(width.at(0)), std::stoi(width.at(1)));
    }
  }
  return tensor;
}

// "2*intermediate_size - hidden_size": the axes one after the other.
std::vector<ClassNames::Axis> read_axes(const std::string& words) {
  std::vector<ClassNames::Axis> axes;
  for (const auto& word : split(words, ' ')) {
    auto& axis = axes.emplace_back();
    for (const auto& part : split(word, '*')) {
      if (std::isdigit(static_cast<unsigned char>(part[0]))) {
        axis.factor = std::stol(part);
      } else if (part != "-") {
        axis.keys.push_back(part);
      }
    }
  }
  return axes;
}

// A rule's pattern as it is looked up: its '#', which numbers a stack's
// matrices, matches a number as '*' does.
std::string looked_up(std::string pattern) {
  std::ranges::replace(pattern, '#', '*');
  return pattern;
}

ClassNames read_class(const ClassText& text) {
  ClassNames names{
      text.name, "", parse_json(text.json, "class_names.inc"), {}, {}, {}};
  if (names.facts.contains("not_taken")) {
    names.not_taken = names.facts.at("not_taken").get<std::string>();
    return names;
  }
  for (const auto& [words, patterns] : names.facts.at("tensors").items()) {
    const auto tensor = read_tensor(words);
    for (const auto& pattern : patterns) {
      names.tensors.emplace(pattern.get<std::string>(), tensor);
    }
  }
  for (const auto& [pattern, words] : names.facts.at("axes").items()) {
    names.axes.emplace(pattern, read_axes(words.get<std::string>()));
  }
  for (const auto& rule : names.facts.at("rules")) {
    names.rules[looked_up(rule.at("from").get<std::string>())].push_back(rule);
    if (const auto it = rule.find("count"); it != rule.end()) {
      names.tensors.at(rule.at("to").get<std::string>()).count =
          it->get<std::string>();
    }
  }
  return names;
}

bool is_of(const Json& architectures, const std::string& name) {
  const auto is_it = [&](const Json& one) { return one == name; };
  return is_it(architectures) ||
      (architectures.is_array() &&
       std::any_of(architectures.begin(), architectures.end(), is_it));
}

}  // namespace

std::optional<ClassNames> find_class_names(
    const std::string& model_type,
    const Json& architectures) {
  std::string name = model_type;
  for (const ClassAlias& alias : kClassAliases) {
    const std::string architecture = alias.architecture;
    if (model_type == alias.model_type &&
        (architecture.empty() || is_of(architectures, architecture))) {
      name = alias.name;
      break;
    }
  }
  for (const ClassText& text : kClasses) {
    if (name == text.name) {
      return read_class(text);
    }
  }
  return std::nullopt;
}

std::vector<std::string> patterns_of(const std::string& name) {
  // A name that itself looks like a pattern, or that ends in a dot, has none.
  if (name.find_first_of("*#") != name.npos || name.ends_with('.')) {
    return {};
  }
  std::vector<std::string> found{""};
  for (const auto& part : split(name, '.')) {
    std::vector<std::string> longer;
    for (const auto& begun : found) {
      longer.push_back(begun + (begun.empty() ? "" : ".") + part);
    }
    // The limit (four numbers) is more than any class's names have.
    if (is_number(part) && found.size() < 16) {
      for (const auto& begun : found) {
        longer.push_back(begun + (begun.empty() ? "" : ".") + "*");
      }
    }
    found = std::move(longer);
  }
  return found;
}

std::vector<std::string> numbers_in(const std::string& name) {
  auto parts = split(name, '.');
  std::erase_if(parts, [](const auto& part) { return !is_number(part); });
  return parts;
}

std::string filled(
    std::string pattern,
    const std::vector<std::string>& numbers,
    char mark) {
  for (const auto& number : numbers) {
    if (const auto at = pattern.find(mark); at != pattern.npos) {
      pattern.replace(at, 1, number);
    }
  }
  return pattern;
}

}  // namespace pennyweight
