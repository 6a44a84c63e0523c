#include "text/stream_encoder.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "text/byte_file.h"

namespace pennyweight {

namespace {

constexpr size_t kOverlap = size_t{8} << 10;
constexpr int kDoublings = 3;

/// Where a window may end or begin: behind a line's end where there is one in
/// [low, high), else behind a blank, else between two characters.
size_t boundary(std::string_view text, size_t low, size_t high) {
  for (const char c : {'\n', ' '}) {
    const size_t at = text.substr(0, high).rfind(c);
    if (at != std::string_view::npos && at >= low) {
      return at + 1;
    }
  }
  return high - cut_character(text.substr(0, high));
}

/// The first token at or behind `byte`.
size_t first_at(const std::vector<PlacedToken>& tokens, size_t byte) {
  const auto it =
      std::find_if(tokens.begin(), tokens.end(), [&](const auto& t) {
        return t.begin >= byte;
      });
  return static_cast<size_t>(it - tokens.begin());
}

/// Whether the text may be cut before `tokens[index]`: several tokens may
/// stand for the bytes of one character.
bool parts(const std::vector<PlacedToken>& tokens, size_t index) {
  return index == 0 || index == tokens.size() ||
      (tokens[index - 1].end <= tokens[index].begin &&
       tokens[index - 1].begin < tokens[index].begin);
}

/// The index in `whole` from which both agree up to byte `last`; `part` begins
/// at byte `start` of the text of `whole`.
std::optional<size_t> agreement(
    const std::vector<PlacedToken>& whole,
    const std::vector<PlacedToken>& part,
    size_t start,
    size_t first,
    size_t last) {
  size_t i = first_at(whole, first);
  const auto stop = first_at(whole, last);
  while (i < stop && !parts(whole, i)) {
    ++i;
  }
  if (i >= stop) {
    return std::nullopt;
  }
  size_t j = first_at(part, whole[i].begin - start);
  if (!parts(part, j) || part.size() - j < stop - i) {
    return std::nullopt;
  }
  for (size_t k = 0; k < stop - i; ++k) {
    const auto& own = whole[i + k];
    const auto& other = part[j + k];
    if (own.id != other.id || own.begin != other.begin + start ||
        own.end != other.end + start) {
      return std::nullopt;
    }
  }
  return i;
}

}  // namespace

StreamEncoder::StreamEncoder(const Tokenizer& tokenizer, Tokens tokens)
    : tokenizer_(tokenizer), tokens_(std::move(tokens)) {}

void StreamEncoder::add(std::string_view piece) {
  // By windows, however large the piece is.
  while (!piece.empty()) {
    const size_t room = (kWindow << kDoublings) - text_.size();
    size_t taken = std::min(piece.size(), room);
    taken -= taken < piece.size() ? cut_character(piece.substr(0, taken)) : 0;
    text_ += piece.substr(0, taken);
    piece.remove_prefix(taken);
    while (text_.size() > (kWindow << kDoublings) - 4) {
      cut();
    }
  }
}

void StreamEncoder::end() {
  while (text_.size() > kWindow) {
    cut();
  }
  if (!begun_) {
    if (!text_.empty()) {
      tokens_(tokenizer_.encode(text_));
    }
  } else {
    auto tokens = tokenizer_.encode_places(text_);
    tokens.erase(
        tokens.begin(),
        tokens.begin() + static_cast<std::ptrdiff_t>(first_wanted(tokens)));
    give(tokens, tokens.size());
    tokens_(special().after);
  }
  text_.clear();
  dropped_ = 0;
  begun_ = false;
}

void StreamEncoder::cut() {
  size_t window = kWindow;
  size_t overlap = kOverlap;
  for (int i = 0; i <= kDoublings; ++i, window *= 2, overlap *= 4) {
    if (try_cut(
            std::min(window, text_.size()), std::min(overlap, window / 2))) {
      return;
    }
  }
  const size_t at = boundary(text_, kWindow / 2, kWindow);
  const auto tokens = tokenizer_.encode_places(text_.substr(0, at));
  give(
      {tokens.begin() + static_cast<std::ptrdiff_t>(first_wanted(tokens)),
       tokens.end()},
      tokens.size() - first_wanted(tokens));
  go_on_at(at, 0);
  ++forced_cuts_;
}

bool StreamEncoder::try_cut(size_t window, size_t overlap) {
  const std::string_view all = text_;
  const size_t end = boundary(all, window - overlap / 8, window);
  const size_t start = boundary(all, end - overlap, end - overlap * 7 / 8);
  const auto whole = tokenizer_.encode_places(all.substr(0, end));
  const auto part = tokenizer_.encode_places(all.substr(start, end - start));
  const auto at = agreement(
      whole, part, start, start + overlap / 4, start + overlap * 3 / 4);
  const size_t skipped = first_wanted(whole);
  if (!at || *at < skipped) {
    return false;
  }
  give(
      {whole.begin() + static_cast<std::ptrdiff_t>(skipped), whole.end()},
      *at - skipped);
  go_on_at(start, whole[*at].begin - start);
  return true;
}

void StreamEncoder::give(const std::vector<PlacedToken>& tokens, size_t count) {
  std::vector<int32_t> ids;
  ids.reserve(count);
  if (!begun_) {
    ids = special().before;
    begun_ = true;
  }
  for (size_t i = 0; i < count; ++i) {
    ids.push_back(tokens[i].id);
  }
  tokens_(ids);
}

size_t StreamEncoder::first_wanted(
    const std::vector<PlacedToken>& tokens) const {
  return dropped_ == 0 ? 0 : first_at(tokens, dropped_);
}

void StreamEncoder::go_on_at(size_t start, size_t dropped) {
  text_.erase(0, start);
  dropped_ = dropped;
}

const StreamEncoder::Special& StreamEncoder::special() {
  if (special_) {
    return *special_;
  }
  const auto plain = tokenizer_.encode("a", false);
  const auto all = tokenizer_.encode("a", true);
  const auto at =
      std::search(all.begin(), all.end(), plain.begin(), plain.end());
  if (at == all.end() && !plain.empty()) {
    throw not_supported_error(
        "tokenizer",
        "what the tokenizer puts around a text depends on the text, so a text "
        "of over 256 KiB can't be tokenized; give it as rows");
  }
  special_ = Special{
      {all.begin(), at},
      {at + static_cast<std::ptrdiff_t>(plain.size()), all.end()}};
  return *special_;
}

}  // namespace pennyweight
