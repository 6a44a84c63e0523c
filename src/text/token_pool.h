#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "text/load_data.h"

namespace pennyweight {

/// Gathers tokenized texts and chats, and cuts them into sequences.
class TokenPool {
 public:
  TokenPool(const Tokenizer& tokenizer, int sequence_length);

  /// Text that later texts may follow in one sequence, until end_file().
  void add_text(std::string_view text);
  /// A chat, a sequence of its own. One that the template refuses is counted
  /// and left out.
  void add_chat(const Json& messages);
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

  std::string too_few(const std::string& name) const;
  int64_t count_sources(const std::vector<Piece>& pieces) const;

  const Tokenizer& tokenizer_;
  size_t length_;
  std::vector<int32_t> tokens_;
  std::vector<size_t> starts_;  // where each text or chat begins in tokens_
  std::vector<Piece> pieces_;
  size_t open_ = 0;  // the first token not cut yet
  int64_t refused_ = 0;
  std::string refusal_;
  bool plain_chat_ = false;
};

}  // namespace pennyweight
