#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/json_fwd.h"

namespace pennyweight {

/// A token and the bytes of the text, [begin, end), that it stands for.
struct PlacedToken {
  int32_t id = 0;
  uint32_t begin = 0;
  uint32_t end = 0;

  bool operator==(const PlacedToken&) const = default;
};

/// A model's tokenizer and chat template, with the ids and the text that
/// transformers' AutoTokenizer gives for the same folder. Encoding is safe
/// from several threads; rendering isn't. Known difference: a run of over a
/// million blanks meets the regex crate's backtracking limit, and what follows
/// it is split otherwise.
class Tokenizer {
 public:
  /// Reads tokenizer.json and, where they are, tokenizer_config.json,
  /// special_tokens_map.json and the chat template. not_found where there is
  /// no folder, not_supported where it has only a tokenizer of another kind,
  /// corrupt for damaged files. A damaged template fails when rendering.
  static Tokenizer load(const std::filesystem::path& folder);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// `text` is UTF-8 (else invalid_argument) of any length.
  std::vector<int32_t> encode(
      std::string_view text,
      bool add_special_tokens = true) const;
  /// Without special tokens; `text` is shorter than 4 GiB.
  std::vector<PlacedToken> encode_places(std::string_view text) const;
  std::string decode(std::span<const int32_t> ids, bool skip_special = false)
      const;

  /// Tokens in all, added ones included; ids may have gaps.
  int64_t vocab_size() const;
  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;

  bool has_chat_template() const;
  /// The file that the chat template comes from; empty without one.
  const std::string& chat_template_file() const;
  /// `messages` is a list of {"role", "content", ...}. corrupt with the
  /// template's own words when it refuses them, and for a template that has
  /// errors or doesn't end.
  std::string render_chat(const Json& messages, bool add_generation_prompt)
      const;

 private:
  struct Parts;
  explicit Tokenizer(std::unique_ptr<Parts> parts);
  std::optional<int32_t> named_id(const char* name) const;

  std::unique_ptr<Parts> parts_;
};

}  // namespace pennyweight
