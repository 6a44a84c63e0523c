#include "export/front_matter.h"

#include <algorithm>
#include <cctype>
#include <functional>
#include <map>
#include <optional>
#include <set>

#include "core/files/wrong_file.h"
#include "core/json.h"
#include "core/text.h"

namespace pennyweight {

namespace {

// Enough for the longest terms that cards quote.
constexpr size_t kMaxFrontMatter = 256 << 10;
constexpr size_t kMaxScalar = 500;
constexpr size_t kMaxItems = 500;

bool all_of(std::string_view text, const char* extra) {
  return std::ranges::all_of(text, [extra](unsigned char c) {
    return std::isalnum(c) ||
        std::string_view(extra).find(static_cast<char>(c)) !=
        std::string_view::npos;
  });
}

bool is_printable(std::string_view text) {
  return !text.empty() && text.size() <= kMaxScalar &&
      std::ranges::all_of(text, [](char c) { return c >= ' ' && c <= '~'; });
}

bool is_license(const std::string& text) {
  return text.size() <= 64 && all_of(text, ".+-_");
}

bool is_license_name(const std::string& text) {
  return text.size() <= 100;
}

bool is_license_link(const std::string& text) {
  bool web = text.starts_with("https://") || text.starts_with("http://");
  return all_of(text, web ? "-._~:/?#@!$&+,;=%" : "-._/") &&
      text.find("..") == std::string::npos && !text.starts_with('/');
}

bool is_language(const std::string& text) {
  return text.size() >= 2 && text.size() <= 24 && all_of(text, "-");
}

struct Rule {
  std::function<bool(const std::string&)> fits;
  bool list;
};

const std::map<std::string, Rule>& rules() {
  static const std::map<std::string, Rule> kRules{
      {"license", {is_license, true}},
      {"license_name", {is_license_name, false}},
      {"license_link", {is_license_link, false}},
      {"language", {is_language, true}},
  };
  return kRules;
}

std::string_view trim(std::string_view text) {
  auto first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) {
    return {};
  }
  return text.substr(first, text.find_last_not_of(" \t\r") + 1 - first);
}

// Nothing, or a comment.
bool is_rest(std::string_view text) {
  return trim(text).empty() || (text.front() == ' ' && trim(text)[0] == '#');
}

std::optional<std::string> scalar(std::string_view text) {
  text = trim(text);
  if (text.empty()) {
    return std::nullopt;
  }
  char quote = text[0];
  if (quote == '"' || quote == '\'') {
    auto end = text.find(quote, 1);
    if (end == std::string_view::npos || !is_rest(text.substr(end + 1))) {
      return std::nullopt;
    }
    text = text.substr(1, end - 1);
    // Escapes: no value that is wanted here needs one.
    if (text.find('\\') != std::string_view::npos) {
      return std::nullopt;
    }
  } else {
    text = trim(text.substr(0, text.find(" #")));
    if (text.empty() ||
        std::string_view("[]{}&*!|>%@`?:,#-").find(text[0]) !=
            std::string_view::npos ||
        text.find(": ") != std::string_view::npos || text.ends_with(':')) {
      return std::nullopt;
    }
  }
  if (!is_printable(text)) {
    return std::nullopt;
  }
  return std::string(text);
}

// A key and all lines that belong to it.
struct Entry {
  std::string_view inline_text;
  std::vector<std::string_view> block;
  bool twice = false;
};

std::optional<Json> flow_list(std::string_view text) {
  auto end = text.find(']');
  if (end == std::string_view::npos || !is_rest(text.substr(end + 1))) {
    return std::nullopt;
  }
  Json items = Json::array();
  text = text.substr(1, end - 1);
  while (items.size() < kMaxItems) {
    auto comma = text.find(',');
    auto item = scalar(text.substr(0, comma));
    if (!item) {
      return std::nullopt;
    }
    items.push_back(*item);
    if (comma == std::string_view::npos) {
      return items;
    }
    text = text.substr(comma + 1);
  }
  return std::nullopt;
}

std::optional<Json> value_of(const Entry& entry) {
  auto text = trim(entry.inline_text);
  if (entry.twice || entry.block.size() > kMaxItems) {
    return std::nullopt;
  }
  if (!text.empty() && !text.starts_with('#')) {
    if (!entry.block.empty()) {
      return std::nullopt;  // goes on over lines
    }
    if (text.starts_with('[')) {
      return flow_list(text);
    }
    auto value = scalar(text);
    return value ? std::optional<Json>(*value) : std::nullopt;
  }
  Json items = Json::array();
  for (auto line : entry.block) {
    line = trim(line);
    auto item = line.starts_with("- ") ? scalar(line.substr(2)) : std::nullopt;
    if (!item) {
      return std::nullopt;
    }
    items.push_back(*item);
  }
  return items.empty() ? std::nullopt : std::optional<Json>(items);
}

bool fits(const Rule& rule, const Json& value) {
  if (value.is_string()) {
    return rule.fits(value.get<std::string>());
  }
  return rule.list && std::ranges::all_of(value, [&](const Json& item) {
           return rule.fits(item.get<std::string>());
         });
}

// The lines between the two `---`.
std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  if (text.starts_with("\xEF\xBB\xBF")) {
    text.remove_prefix(3);
  }
  bool open = false;
  while (!text.empty()) {
    auto end = std::min(text.find('\n'), text.size());
    auto line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (trim(line) == "---" && line.starts_with("---")) {
      if (open) {
        return lines;
      }
      open = true;
    } else if (!open) {
      break;
    } else {
      lines.push_back(line);
    }
  }
  return {};
}

}  // namespace

FrontMatter parse_front_matter(std::string_view text) {
  std::map<std::string, Entry> entries;
  Entry* current = nullptr;
  for (auto line : lines_of(text.substr(0, kMaxFrontMatter))) {
    if (trim(line).empty() || trim(line).starts_with('#')) {
      continue;
    }
    if (line[0] == ' ' || line[0] == '\t' || line[0] == '-') {
      if (current) {
        current->block.push_back(line);
      }
      continue;
    }
    current = nullptr;
    auto colon = line.find(':');
    std::string key(trim(line.substr(0, colon)));
    if (colon == std::string_view::npos || !rules().contains(key)) {
      continue;
    }
    auto rest = line.substr(colon + 1);
    auto [at, fresh] = entries.try_emplace(key, Entry{rest, {}});
    // `key:value` is no key in YAML.
    at->second.twice = !fresh || !(trim(rest).empty() || rest[0] == ' ');
    current = &at->second;
  }
  FrontMatter result;
  for (const auto& [key, entry] : entries) {
    auto value = value_of(entry);
    if (value && fits(rules().at(key), *value)) {
      result.values[key] = *value;
    } else {
      result.dropped.push_back(key);
    }
  }
  return result;
}

FrontMatter read_front_matter(const std::filesystem::path& readme) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(readme, ignored)) {
    return {};
  }
  return parse_front_matter(beginning_of(readme, kMaxFrontMatter));
}

std::string yaml_scalar(const std::string& text) {
  // What YAML 1.1 takes for a truth value or nothing (Norwegian is "no").
  static const std::set<std::string> kWords{
      "y", "n", "yes", "no", "true", "false", "on", "off", "null"};
  bool plain = !text.empty() &&
      std::isalpha(static_cast<unsigned char>(text[0])) &&
      all_of(text, "._/-") && !kWords.contains(lower_case(text));
  return plain ? text : Json(text).dump();
}

}  // namespace pennyweight
