#include "checkpoint/quantization_entries.h"

#include "core/error.h"
#include "core/json.h"

namespace pennyweight {

namespace {

constexpr const char* kKeys[] = {
    "quantization",
    "quantization_config",
    "compression_config"};
constexpr const char* kTextConfig = "text_config";
constexpr const char* kModelOpt = "hf_quant_config.json";
constexpr size_t kMaxFile = size_t{16} << 20;

bool is_mlx(const Json& entry) {
  return entry.is_object() && entry.contains("group_size") &&
      entry.contains("bits") && !entry.contains("quant_method");
}

std::string text_of(const Json& entry, const char* key) {
  auto it = entry.find(key);
  return it != entry.end() && it->is_string()
      ? one_line(it->get<std::string>(), 40)
      : "";
}

// The quantizer that wrote an entry which is not MLX's. Some leave their name
// out.
std::string method_of(const Json& entry) {
  if (!entry.is_object()) {
    return "of no known form";
  }
  for (const char* key : {"quant_method", "quant_algo", "quant_type"}) {
    if (auto name = text_of(entry, key); !name.empty()) {
      return name;
    }
  }
  if (entry.contains("load_in_4bit") || entry.contains("load_in_8bit")) {
    return "bitsandbytes";
  }
  if (entry.contains("quantization") && entry["quantization"].is_object()) {
    return method_of(entry["quantization"]);  // modelopt's file
  }
  return "by an unnamed method";
}

void add(
    QuantizationEntries& entries,
    const std::string& name,
    const Json& entry) {
  if (entry.is_null()) {
    return;  // as good as absent, to everyone who reads it
  }
  if (is_mlx(entry)) {
    entries.found.push_back(name + ": MLX");
    if (entries.mlx.is_null()) {
      entries.mlx = entry;
    }
  } else if (entry.is_object() && entry.empty()) {
    entries.found.push_back(name + ": empty");
  } else {
    const auto method = method_of(entry);
    entries.found.push_back(name + ": " + method);
    if (entries.method.empty()) {
      entries.method = method;
      entries.foreign = entry;
      entries.foreign_place = name == kModelOpt ? name : "config.json: " + name;
    }
  }
}

void add_of(
    QuantizationEntries& entries,
    const Json& config,
    const std::string& prefix) {
  for (const char* key : kKeys) {
    if (auto it = config.find(key); it != config.end()) {
      add(entries, prefix + key, *it);
    }
  }
}

}  // namespace

QuantizationEntries read_quantization_entries(
    const Json& config,
    const std::filesystem::path& folder) {
  QuantizationEntries entries;
  add_of(entries, config, "");
  if (auto it = config.find(kTextConfig);
      it != config.end() && it->is_object()) {
    add_of(entries, *it, std::string(kTextConfig) + "'s ");
  }
  std::error_code ignored;
  if (std::filesystem::exists(folder / kModelOpt, ignored)) {
    try {
      add(entries, kModelOpt, read_json(folder / kModelOpt, kMaxFile));
    } catch (const Error&) {
      entries.found.push_back(std::string(kModelOpt) + ": unreadable");
    }
  }
  return entries;
}

std::string packed_by(const Json& entry) {
  return is_mlx(entry) ? "mlx" : method_of(entry);
}

Json without_quantization(Json config) {
  for (const char* key : kKeys) {
    config.erase(key);
  }
  if (auto it = config.find(kTextConfig);
      it != config.end() && it->is_object()) {
    for (const char* key : kKeys) {
      it->erase(key);
    }
  }
  return config;
}

}  // namespace pennyweight
