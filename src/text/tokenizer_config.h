#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "core/json.h"

namespace pennyweight {

/// Which of transformers' pipelines replaces the one in tokenizer.json; the
/// values are those of pw_tokenizer_load's `scheme`.
enum class Pipeline {
  file = 0,
  metaspace_first = 1,
  metaspace_always = 2,
  metaspace_never = 3,
  gpt2 = 4,
  gpt2_prefix = 5,
  qwen2 = 6,
};

/// What the files beside tokenizer.json say, as transformers 5's
/// AutoTokenizer reads them.
struct TokenizerConfig {
  Pipeline pipeline = Pipeline::file;
  /// Tokens to add: objects with `content` and AddedToken's flags.
  Json added = Json::array();
  /// bos_token, eos_token ...: the content of each named token.
  Json named = Json::object();
  /// The source of the chat template, and the file it comes from.
  std::optional<std::string> chat_template;
  std::string chat_template_file;
};

/// `tokenizer_json` is the text of the folder's tokenizer.json. Files that
/// are absent are passed over; damaged ones are a corrupt Error.
TokenizerConfig read_tokenizer_config(
    const std::filesystem::path& folder,
    std::string_view tokenizer_json);

}  // namespace pennyweight
