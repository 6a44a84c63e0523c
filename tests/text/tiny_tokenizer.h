#pragma once

#include <filesystem>
#include <fstream>
#include <random>
#include <string>

#include "core/json.h"

namespace pennyweight::testing {

namespace fs = std::filesystem;

/// A folder that goes with its owner.
class TempFolder {
 public:
  TempFolder() {
    std::random_device random;
    path_ = fs::temp_directory_path() /
        ("pennyweight-text-" + std::to_string(random()) +
         std::to_string(random()));
    fs::create_directories(path_);
  }
  ~TempFolder() {
    std::error_code code;
    fs::remove_all(path_, code);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const fs::path& path() const {
    return path_;
  }
  fs::path write(const std::string& name, std::string_view text) const {
    fs::path file = path_ / name;
    fs::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << text;
    return file;
  }

 private:
  fs::path path_;
};

/// The character that stands for a byte in byte-level BPE, as UTF-8: printable
/// Latin-1 is itself, the rest follows from U+0100 on.
inline std::string byte_symbol(int byte) {
  auto printable = [](int b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  };
  int code = byte;
  if (!printable(byte)) {
    code = 256;
    for (int b = 0; b < byte; ++b) {
      code += printable(b) ? 0 : 1;
    }
  }
  if (code < 0x80) {
    return std::string(1, static_cast<char>(code));
  }
  return {
      static_cast<char>(0xC0 | (code >> 6)),
      static_cast<char>(0x80 | (code & 0x3F))};
}

/// Byte-level BPE: ids 0 to 2 are <s>, </s> and <pad>, byte b is 3 + b, "ab"
/// is 259; <s> goes first.
inline Json tiny_tokenizer_json() {
  Json vocab = {{"<s>", 0}, {"</s>", 1}, {"<pad>", 2}};
  for (int byte = 0; byte < 256; ++byte) {
    vocab[byte_symbol(byte)] = 3 + byte;
  }
  vocab["ab"] = 259;
  Json added = Json::array();
  for (int id = 0; id < 3; ++id) {
    added.push_back(
        {{"id", id},
         {"content",
          id == 0       ? "<s>"
              : id == 1 ? "</s>"
                        : "<pad>"},
         {"single_word", false},
         {"lstrip", false},
         {"rstrip", false},
         {"normalized", false},
         {"special", true}});
  }
  Json byte_level = {
      {"type", "ByteLevel"},
      {"add_prefix_space", false},
      {"trim_offsets", true},
      {"use_regex", true}};
  Json start = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
  Json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  Json processor = {
      {"type", "TemplateProcessing"},
      {"single", Json::array({start, text})},
      {"pair", Json::array({start, text})},
      {"special_tokens",
       {{"<s>",
         {{"id", "<s>"},
          {"ids", Json::array({0})},
          {"tokens", Json::array({"<s>"})}}}}}};
  return {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer", nullptr},
      {"pre_tokenizer", byte_level},
      {"post_processor", processor},
      {"decoder", byte_level},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"vocab", vocab},
        {"merges", Json::array({"a b"})}}}};
}

/// tokenizer.json and tokenizer_config.json in `folder`; a chat template too
/// unless it is empty.
inline void write_tiny_tokenizer(
    const TempFolder& folder,
    const std::string& chat_template = "",
    const Json& config = Json::object()) {
  folder.write("tokenizer.json", tiny_tokenizer_json().dump());
  Json settings = {
      {"tokenizer_class", "PreTrainedTokenizerFast"},
      {"bos_token", "<s>"},
      {"eos_token", {{"content", "</s>"}, {"lstrip", false}}}};
  settings.update(config);
  if (!chat_template.empty()) {
    settings["chat_template"] = chat_template;
  }
  folder.write("tokenizer_config.json", settings.dump());
}

}  // namespace pennyweight::testing
