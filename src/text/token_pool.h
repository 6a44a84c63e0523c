#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "text/load_data.h"
#include "text/spilled_list.h"
#include "text/stream_encoder.h"

namespace pennyweight {

/// Why a row gives no tokens: a reason to count by, and what more is known.
struct RowRefusal {
  std::string reason;
  std::string detail;
};

/// Gathers tokenized texts and chats, and cuts them into sequences. Tokens go
/// to a scratch file: memory does not grow with the text.
class TokenPool {
 public:
  TokenPool(const Tokenizer& tokenizer, int sequence_length);

  /// Text in pieces; end_text() ends it. Later texts may follow it in one
  /// sequence, until end_file(). `where` names it for errors.
  void add_piece(std::string_view piece, const std::string& where);
  void end_text();
  /// A chat, a sequence of its own, unless the template refuses it or it has
  /// nothing to predict: then why not.
  std::optional<RowRefusal> add_chat(
      const Json& messages,
      const std::string& where);
  /// Cuts the text since the last call; the rest is dropped.
  void end_file();

  int64_t tokens() const {
    return static_cast<int64_t>(tokens_.size());
  }
  /// Sequences that it was cut into.
  size_t count() const {
    return pieces_.size();
  }
  /// What there is to say about the whole of it.
  std::vector<std::string> warnings() const;

  /// The sequences of these indices below count(), in this order.
  std::vector<std::vector<int32_t>> take(std::span<const size_t> order) const;
  /// Distinct texts and chats that they come from.
  int64_t count_sources(std::span<const size_t> order) const;

 private:
  struct Piece {
    uint64_t first;
    uint64_t count;
  };

  std::vector<int32_t> encode_chat(
      const Json& messages,
      const std::string& where) const;
  std::string render(const Json& messages, const std::string& where) const;
  std::vector<int32_t>
  encode(std::string_view text, bool special, const std::string& where) const;
  std::vector<int32_t> encode_start(
      const std::string& text,
      const std::string& where) const;
  size_t source_of(uint64_t token) const;

  const Tokenizer& tokenizer_;
  size_t length_;
  StreamEncoder encoder_;
  SpilledList<int32_t> tokens_;
  SpilledList<uint64_t> starts_;  // where each text or chat begins in tokens_
  SpilledList<Piece> pieces_;
  size_t open_ = 0;  // the first token not cut yet
  bool in_text_ = false;
  std::string where_;  // of the text that is being added
  bool plain_chat_ = false;
};

}  // namespace pennyweight
