#include "text/tokenizer.h"

#include "core/bytes.h"
#include "core/files/atomic_file.h"
#include "core/files/wrong_file.h"
#include "core/json.h"
#include "text/rust_text.h"
#include "text/tokenizer_config.h"

namespace pennyweight {

namespace {

constexpr size_t kTokenizerLimit = size_t{256} << 20;

std::string read_tokenizer_json(const fs::path& folder) {
  fs::path file = folder / "tokenizer.json";
  if (fs::exists(file)) {
    std::string json = read_file(file, kTokenizerLimit);
    if (const auto wrong = wrong_file(json)) {
      throw corrupt_error("tokenizer", file.string() + " " + *wrong);
    }
    return json;
  }
  if (!fs::is_directory(folder)) {
    throw not_found_error("tokenizer", folder.string() + " is no folder");
  }
  for (const char* name :
       {"tokenizer.model", "tekken.json", "vocab.json", "tiktoken.model"}) {
    if (fs::exists(folder / name)) {
      throw not_supported_error(
          "tokenizer",
          folder.string() + " has " + name +
              " but no tokenizer.json; make one with transformers: "
              "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)");
    }
  }
  throw not_found_error(
      "tokenizer",
      folder.string() +
          " has no tokenizer.json; copy it from the model's "
          "repository");
}

/// json::dump throws on text that isn't UTF-8, which is the caller's mistake.
std::string dump_checked(const Json& json) {
  try {
    return json.dump();
  } catch (const Json::exception& error) {
    throw argument_error(
        "tokenizer", "a message is not valid UTF-8: " + one_line(error.what()));
  }
}

}  // namespace

struct Tokenizer::Parts {
  TokenizerConfig config;
  TokenizerHandle handle;
  /// Compiled at the first use.
  mutable TemplateHandle chat_template;
};

Tokenizer::Tokenizer(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::load(const fs::path& folder) {
  std::string json = read_tokenizer_json(folder);
  auto parts = std::make_unique<Parts>();
  parts->config = read_tokenizer_config(folder, json);
  std::string added = dump_checked(parts->config.added);
  PwTokenizer* handle = nullptr;
  RustBytes error;
  int32_t status = pw_tokenizer_load(
      rust_data(json),
      json.size(),
      static_cast<int32_t>(parts->config.pipeline),
      rust_data(added),
      added.size(),
      &handle,
      error.out());
  parts->handle.reset(handle);
  check_rust(status, error, "tokenizer", (folder / "tokenizer.json").string());
  return Tokenizer(std::move(parts));
}

std::vector<int32_t> Tokenizer::encode(
    std::string_view text,
    bool add_special_tokens) const {
  const auto out = ask_rust("tokenizer", "", [&](auto* ids, auto* error) {
    return pw_tokenizer_encode(
        parts_->handle.get(),
        rust_data(text),
        text.size(),
        add_special_tokens ? 1 : 0,
        ids,
        error);
  });
  return values_of<int32_t>(out.view());
}

std::vector<PlacedToken> Tokenizer::encode_places(std::string_view text) const {
  const auto out = ask_rust("tokenizer", "", [&](auto* tokens, auto* error) {
    return pw_tokenizer_encode_places(
        parts_->handle.get(), rust_data(text), text.size(), tokens, error);
  });
  static_assert(sizeof(PlacedToken) == 12);
  return values_of<PlacedToken>(out.view());
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special)
    const {
  std::vector<uint32_t> unsigned_ids(ids.begin(), ids.end());
  const auto out = ask_rust("tokenizer", "", [&](auto* text, auto* error) {
    return pw_tokenizer_decode(
        parts_->handle.get(),
        unsigned_ids.data(),
        unsigned_ids.size(),
        skip_special ? 1 : 0,
        text,
        error);
  });
  return std::string(out.view());
}

int64_t Tokenizer::vocab_size() const {
  return static_cast<int64_t>(pw_tokenizer_vocab_size(parts_->handle.get()));
}

std::optional<int32_t> Tokenizer::named_id(const char* name) const {
  auto it = parts_->config.named.find(name);
  if (it == parts_->config.named.end()) {
    return std::nullopt;
  }
  const auto& token = it->get_ref<const std::string&>();
  int64_t id =
      pw_tokenizer_id(parts_->handle.get(), rust_data(token), token.size());
  return id < 0 ? std::nullopt : std::optional(static_cast<int32_t>(id));
}

std::optional<int32_t> Tokenizer::bos_id() const {
  return named_id("bos_token");
}

std::optional<int32_t> Tokenizer::eos_id() const {
  return named_id("eos_token");
}

bool Tokenizer::has_chat_template() const {
  return parts_->config.chat_template.has_value();
}

const std::string& Tokenizer::chat_template_file() const {
  return parts_->config.chat_template_file;
}

std::string Tokenizer::render_chat(
    const Json& messages,
    bool add_generation_prompt) const {
  const TokenizerConfig& config = parts_->config;
  if (!config.chat_template) {
    throw not_supported_error("tokenizer", "the model has no chat template");
  }
  if (!parts_->chat_template) {
    RustBytes error;
    PwTemplate* handle = nullptr;
    int32_t status = pw_template_load(
        rust_data(*config.chat_template),
        config.chat_template->size(),
        &handle,
        error.out());
    parts_->chat_template.reset(handle);
    check_rust(status, error, "chat template", config.chat_template_file);
  }
  Json variables = config.named;
  variables["messages"] = messages;
  variables["tools"] = nullptr;
  variables["documents"] = nullptr;
  variables["add_generation_prompt"] = add_generation_prompt;
  std::string text = dump_checked(variables);
  const auto out = ask_rust(
      "chat template",
      config.chat_template_file,
      [&](auto* rendered, auto* wrong) {
        return pw_template_render(
            parts_->chat_template.get(),
            rust_data(text),
            text.size(),
            rendered,
            wrong);
      });
  return std::string(out.view());
}

}  // namespace pennyweight
