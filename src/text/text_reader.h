#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "text/read_source.h"
#include "text/wall.h"

namespace pennyweight {

/// What a model's tokenizer says of itself.
struct TokenizerFacts {
  int64_t vocab_size = 0;
  std::optional<int32_t> bos_id;
  std::optional<int32_t> eos_id;
};

/// A model's tokenizer and chat template behind a Wall, where they read text:
/// whatever they do, this process goes on. It ends with the reader.
///
/// Each function has Tokenizer's errors, and Wall's.
class TextReader {
 public:
  /// Tokenizer::load's. `memory_limit` is what --memory-limit says: it holds
  /// for the tokenizer's process, too.
  explicit TextReader(
      const std::filesystem::path& folder,
      const std::optional<std::string>& memory_limit = {});

  const TokenizerFacts& facts() const {
    return facts_;
  }

  /// Reads all of a source and cuts it into sequences.
  SourceSummary read(
      const DataSource& source,
      const LoadDataOptions& options,
      const ProgressFn& progress);
  /// Of what was read last, the sequences of these indices, in this order, and
  /// in `sources` how many texts, rows and chats they come from.
  std::vector<std::vector<int32_t>> take(
      std::span<const size_t> order,
      int64_t& sources);

  std::vector<int32_t> encode(const std::string& text);
  std::string decode(std::span<const int32_t> ids);

 private:
  Wall wall_;
  TokenizerFacts facts_;
};

}  // namespace pennyweight
