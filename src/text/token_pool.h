#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "text/load_data.h"

namespace pennyweight {

/// Why a row gives no tokens: a reason to count by, and what more is known.
struct RowRefusal {
  std::string reason;
  std::string detail;
};

/// Gathers tokenized texts and chats, and cuts them into sequences.
class TokenPool {
 public:
  TokenPool(const Tokenizer& tokenizer, int sequence_length);

  /// Text that later texts may follow in one sequence, until end_file().
  void add_text(std::string_view text);
  /// A chat, a sequence of its own, unless the template refuses it or it has
  /// nothing to predict: then why not.
  std::optional<RowRefusal> add_chat(const Json& messages);
  /// Cuts the text since the last call; the rest is dropped.
  void end_file();

  int64_t tokens() const {
    return static_cast<int64_t>(tokens_.size());
  }
  /// The sequences chosen by the options, with tokens and sources counted.
  /// invalid_argument when there are none; `name` says of what.
  TokenData take(const LoadDataOptions& options, const std::string& name) const;

 private:
  struct Piece {
    size_t first;
    size_t count;
  };

  std::vector<int32_t> encode_chat(const Json& messages) const;
  std::string too_few(const std::string& name) const;
  int64_t count_sources(const std::vector<Piece>& pieces) const;

  const Tokenizer& tokenizer_;
  size_t length_;
  std::vector<int32_t> tokens_;
  std::vector<size_t> starts_;  // where each text or chat begins in tokens_
  std::vector<Piece> pieces_;
  size_t open_ = 0;  // the first token not cut yet
  bool plain_chat_ = false;
};

}  // namespace pennyweight
