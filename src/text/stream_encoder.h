#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace pennyweight {

/// Tokenizes a text that comes in pieces, in memory that does not grow with
/// it, to the tokens that the whole text gives.
///
/// The text is cut into windows. What a tokenizer makes of a place depends on
/// what stands near it: so the last part of a window is tokenized again by
/// itself, and the cut is made within a stretch where both give the same
/// tokens at the same bytes. Where no such stretch is found, the window is made
/// larger, up to eight times; past that (a megabyte without a word's end, say)
/// it is cut all the same, and counted in forced_cuts().
class StreamEncoder {
 public:
  using Tokens = std::function<void(std::span<const int32_t>)>;

  /// Bytes of the first and usual window.
  static constexpr size_t kWindow = size_t{256} << 10;

  /// `tokenizer` outlives the encoder.
  StreamEncoder(const Tokenizer& tokenizer, Tokens tokens);

  /// The next piece of the text, whole characters of UTF-8.
  void add(std::string_view piece);
  /// The text is whole: its last tokens are given, and another may begin.
  void end();

  int64_t forced_cuts() const {
    return forced_cuts_;
  }

 private:
  struct Special {
    std::vector<int32_t> before;
    std::vector<int32_t> after;
  };

  void cut();
  bool try_cut(size_t window, size_t overlap);
  void give(const std::vector<PlacedToken>& tokens, size_t count);
  size_t first_wanted(const std::vector<PlacedToken>& tokens) const;
  void go_on_at(size_t start, size_t dropped);
  const Special& special();

  const Tokenizer& tokenizer_;
  Tokens tokens_;
  std::string text_;    // from the start of the window
  size_t dropped_ = 0;  // its bytes whose tokens were given
  bool begun_ = false;  // tokens of this text were given
  std::optional<Special> special_;
  int64_t forced_cuts_ = 0;
};

}  // namespace pennyweight
