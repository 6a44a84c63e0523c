#include "checkpoint/weight_index.h"

#include <cstdio>

#include "core/error.h"
#include "core/files/atomic_file.h"
#include "core/json.h"

namespace pennyweight {

namespace {

constexpr size_t kMaxIndex = size_t{256} << 20;

// Throws unless an untrusted name of a file is a plain one, so that nothing
// outside the folder is read. (The file itself may be a link, as in the hub's
// cache.)
void check_file_name(const std::string& name, const std::string& index) {
  const bool plain = !name.empty() && name != "." && name != ".." &&
      name.find_first_of("/\\") == std::string::npos &&
      name.find('\0') == std::string::npos;
  if (!plain) {
    throw corrupt_error(
        "checkpoint",
        index + ": the shard \"" + one_line(name, 120) +
            "\" points outside the folder");
  }
}

// An error's text without its origin and the path in front of it.
std::string reason_of(const Error& error, const std::string& path) {
  std::string text = error.what();
  if (const auto at = text.find("] "); at != std::string::npos) {
    text = text.substr(at + 2);
  }
  if (text.starts_with(path + " ")) {
    text = text.substr(path.size() + 1);
  }
  return text;
}

}  // namespace

std::set<std::string> WeightIndex::files() const {
  std::set<std::string> names;
  for (const auto& [tensor, file] : places) {
    names.insert(file);
  }
  return names;
}

std::string WeightIndex::place_of(const std::string& tensor) const {
  auto it = places.find(tensor);
  return it == places.end() ? "" : it->second;
}

WeightIndex read_weight_index(const std::filesystem::path& folder) {
  const auto path = folder / kWeightIndex;
  const auto name = path.string();
  WeightIndex index;
  std::error_code ignored;
  if (!fs::exists(fs::symlink_status(path, ignored))) {
    return index;
  }
  SortedJson json;
  try {
    json = parse_sorted_json(read_file(path, kMaxIndex), name);
  } catch (const Error& error) {
    index.fault = reason_of(error, name);
    return index;
  }
  if (!json.is_object() || !json.contains("weight_map") ||
      !json["weight_map"].is_object() || json["weight_map"].empty()) {
    index.fault = "has no \"weight_map\"";
    return index;
  }
  for (const auto& [tensor, file] : json["weight_map"].items()) {
    if (!file.is_string()) {
      ++index.odd;
      continue;
    }
    const auto& text = file.get_ref<const std::string&>();
    check_file_name(text, name);
    if (text.ends_with(".safetensors")) {
      index.places.emplace(tensor, text);
    } else {
      ++index.odd;
    }
  }
  return index;
}

std::vector<std::string> siblings_of(const std::string& name) {
  // STEM-00001-of-00003.safetensors
  static const std::string kForm = "-ddddd-of-ddddd.safetensors";
  if (name.size() < kForm.size()) {
    return {};
  }
  const auto stem = name.substr(0, name.size() - kForm.size());
  const auto tail = name.substr(stem.size());
  for (size_t i = 0; i < kForm.size(); ++i) {
    const bool digit = tail[i] >= '0' && tail[i] <= '9';
    const bool wants_digit = i < 15 && kForm[i] == 'd';
    if (wants_digit ? !digit : tail[i] != kForm[i]) {
      return {};
    }
  }
  const auto total = tail.substr(10, 5);
  std::vector<std::string> names;
  for (int i = 1; i <= std::stoi(total); ++i) {
    char number[16];
    std::snprintf(number, sizeof(number), "%05d", i);
    names.push_back(stem + "-" + number + "-of-" + total + ".safetensors");
  }
  return names;
}

std::string some_of(const std::vector<std::string>& names, size_t most) {
  std::string text;
  for (size_t i = 0; i < names.size() && i < most; ++i) {
    text += (i ? ", " : "") + one_line(names[i], 120);
  }
  return names.size() > most
      ? text + " and " + std::to_string(names.size() - most) + " more"
      : text;
}

}  // namespace pennyweight
