#include "text/tokenizer_config.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "core/error.h"
#include "core/files/atomic_file.h"
#include "core/json.h"

namespace pennyweight {

namespace {

constexpr size_t kTemplateLimit = size_t{4} << 20;
constexpr std::array<const char*, 7> kNamed = {
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token"};

/// Families for which AutoTokenizer takes tokenizer.json as it is, whatever
/// class the folder names (transformers 5.23, TOKENIZER_MAPPING_NAMES).
constexpr std::array<std::string_view, 24> kPlainFamilies = {
    "mistral",
    "mixtral",
    "ministral",
    "ministral3",
    "mistral3",
    "pixtral",
    "phi3",
    "phimoe",
    "granite",
    "granitemoe",
    "granitemoeshared",
    "granitemoehybrid",
    "olmo2",
    "olmo3",
    "olmo_hybrid",
    "flex_olmo",
    "glm",
    "glm4",
    "glm4_moe",
    "glm4_moe_lite",
    "stablelm",
    "nemotron",
    "internlm3",
    "ernie4_5"};

Json read_object(const fs::path& path) {
  if (!fs::exists(path)) {
    return Json::object();
  }
  Json json = read_json(path);
  if (!json.is_object()) {
    throw corrupt_error("tokenizer", path.string() + " holds no JSON object");
  }
  return json;
}

std::string text_of(const Json& json, const char* key) {
  auto it = json.find(key);
  return it != json.end() && it->is_string() ? it->get<std::string>() : "";
}

bool flag_of(const Json& json, const char* key, bool fallback) {
  auto it = json.find(key);
  return it != json.end() && it->is_boolean() ? it->get<bool>() : fallback;
}

/// The choice of AutoTokenizer.from_pretrained (transformers 5.23), which
/// builds some classes' pipelines itself and takes all others' from the file.
Pipeline pipeline_of(
    const Json& config,
    const std::string& family,
    std::string_view tokenizer_json) {
  std::string name = text_of(config, "tokenizer_class");
  if (name.ends_with("Fast")) {
    name.resize(name.size() - 4);
  }
  bool qwen = family == "qwen2" || family == "qwen3" || family == "qwen2_moe" ||
      family == "qwen3_moe";
  // Qwen2 folders name wrong classes, so there the family decides.
  if (family == "qwen2" || (qwen && name.empty())) {
    return Pipeline::qwen2;
  }
  bool plain =
      std::find(kPlainFamilies.begin(), kPlainFamilies.end(), family) !=
      kPlainFamilies.end();
  if (plain) {
    return Pipeline::file;
  }
  if (name == "Qwen2Tokenizer") {
    return Pipeline::qwen2;
  }
  if (name == "GPT2Tokenizer") {
    return flag_of(config, "add_prefix_space", false) ? Pipeline::gpt2_prefix
                                                      : Pipeline::gpt2;
  }
  if (name != "LlamaTokenizer" ||
      tokenizer_json.find("\"ByteLevel\"") != std::string_view::npos) {
    return Pipeline::file;
  }
  if (!flag_of(config, "add_prefix_space", true)) {
    return Pipeline::metaspace_never;
  }
  return flag_of(config, "legacy", false) ? Pipeline::metaspace_always
                                          : Pipeline::metaspace_first;
}

/// What the class of a pipeline takes for tokens that no file names.
Json class_tokens(Pipeline pipeline) {
  constexpr const char* kEnd = "<|endoftext|>";
  switch (pipeline) {
    case Pipeline::file:
      return Json::object();
    case Pipeline::gpt2:
    case Pipeline::gpt2_prefix:
      return {{"bos_token", kEnd}, {"eos_token", kEnd}, {"unk_token", kEnd}};
    case Pipeline::qwen2:
      return {{"eos_token", kEnd}, {"unk_token", kEnd}, {"pad_token", kEnd}};
    default:
      return {
          {"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"}};
  }
}

/// A token in a config is its content or an object of content and flags.
std::optional<Json> token_of(const Json& value) {
  if (value.is_string() && !value.get_ref<const std::string&>().empty()) {
    return Json{{"content", value}, {"special", true}, {"normalized", false}};
  }
  if (value.is_object() && !text_of(value, "content").empty()) {
    Json token = value;
    token["special"] = true;
    return token;
  }
  return std::nullopt;
}

void add_named(TokenizerConfig& result, const Json& config) {
  for (const char* key : kNamed) {
    auto it = config.find(key);
    if (it == config.end()) {
      continue;
    }
    if (auto token = token_of(*it)) {
      result.named[key] = (*token)["content"];
      (*token)["named"] = true;
      result.added.push_back(*token);
    }
  }
  for (const char* key :
       {"additional_special_tokens", "extra_special_tokens"}) {
    auto it = config.find(key);
    if (it == config.end() || !it->is_array()) {
      continue;
    }
    for (const Json& value : *it) {
      if (auto token = token_of(value)) {
        (*token)["named"] = true;
        result.added.push_back(*token);
      }
    }
  }
}

/// `added_tokens_decoder`: id to token, added in the order of the ids.
void add_decoder(TokenizerConfig& result, const Json& config) {
  auto it = config.find("added_tokens_decoder");
  if (it == config.end() || !it->is_object()) {
    return;
  }
  std::vector<std::pair<int64_t, Json>> tokens;
  for (const auto& [id, token] : it->items()) {
    bool digits = !id.empty() && id.size() < 10 &&
        std::all_of(
            id.begin(), id.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (!digits || !token.is_object() || text_of(token, "content").empty()) {
      throw corrupt_error(
          "tokenizer",
          "tokenizer_config.json: \"added_tokens_decoder\" has the odd entry " +
              one_line(id, 40));
    }
    Json entry = token;
    entry["special"] = flag_of(token, "special", false);
    tokens.emplace_back(std::stoll(id), entry);
  }
  std::stable_sort(tokens.begin(), tokens.end(), [](auto& a, auto& b) {
    return a.first < b.first;
  });
  for (auto& [id, token] : tokens) {
    result.added.push_back(std::move(token));
  }
}

/// A template is a string, or a list of {name, template} whose "default" is
/// the one for plain chats.
std::optional<std::string> template_of(const Json& value) {
  if (value.is_string()) {
    return value.get<std::string>();
  }
  if (value.is_array()) {
    for (const Json& entry : value) {
      if (entry.is_object() && text_of(entry, "name") == "default") {
        return text_of(entry, "template");
      }
    }
  }
  return std::nullopt;
}

/// Processors' file, which no tokenizer of transformers reads: a damaged one
/// has no template.
Json read_legacy_template(const fs::path& folder) {
  try {
    return read_object(folder / "chat_template.json");
  } catch (const Error&) {
    return Json::object();
  }
}

void find_template(
    TokenizerConfig& result,
    const fs::path& folder,
    const Json& config) {
  // A file of its own beats the entry in the config.
  fs::path jinja = folder / "chat_template.jinja";
  if (fs::exists(jinja)) {
    result.chat_template = read_file(jinja, kTemplateLimit);
    result.chat_template_file = jinja.string();
    return;
  }
  const Json legacy = read_legacy_template(folder);
  for (auto [json, name] :
       {std::pair{&legacy, "chat_template.json"},
        std::pair{&config, "tokenizer_config.json"}}) {
    if (auto it = json->find("chat_template"); it != json->end()) {
      if (auto text = template_of(*it)) {
        result.chat_template = std::move(text);
        result.chat_template_file = (folder / name).string();
        return;
      }
    }
  }
}

}  // namespace

TokenizerConfig read_tokenizer_config(
    const fs::path& folder,
    std::string_view tokenizer_json) {
  Json config = read_object(folder / "tokenizer_config.json");
  // Older folders keep the named tokens here; the config has the last word.
  Json map = read_object(folder / "special_tokens_map.json");
  for (const auto& [key, value] : map.items()) {
    if (!config.contains(key)) {
      config[key] = value;
    }
  }
  TokenizerConfig result;
  std::string family =
      text_of(read_object(folder / "config.json"), "model_type");
  result.pipeline = pipeline_of(config, family, tokenizer_json);
  const Json defaults = class_tokens(result.pipeline);
  for (const auto& [key, token] : defaults.items()) {
    if (!config.contains(key)) {
      config[key] = token;
    }
  }
  add_decoder(result, config);
  add_named(result, config);
  find_template(result, folder, config);
  return result;
}

}  // namespace pennyweight
