#include "text/token_pool.h"

#include <algorithm>

#include "core/json.h"
#include "text/byte_file.h"
#include "text/wall.h"

namespace pennyweight {

namespace {

/// Bytes of text in a message, or in all of them.
size_t text_bytes(const Json& json) {
  if (json.is_string()) {
    return json.get_ref<const std::string&>().size();
  }
  size_t bytes = 16;
  if (json.is_structured()) {
    for (const Json& item : json) {
      bytes += text_bytes(item);
    }
  }
  return bytes;
}

std::string plain_chat(const Json& messages) {
  std::string text;
  for (const Json& message : messages) {
    text += message.at("role").get<std::string>() + ": " +
        message.at("content").get<std::string>() + "\n";
  }
  return text;
}

/// Arguments of tool calls stand as JSON in a string in OpenAI's format, and
/// as an object where templates go through them. True where any was parsed.
bool parse_arguments(Json& messages) {
  bool parsed = false;
  for (Json& message : messages) {
    const auto calls = message.find("tool_calls");
    if (calls == message.end() || !calls->is_array()) {
      continue;
    }
    for (Json& call : *calls) {
      Json* function = call.is_object() && call.contains("function")
          ? &call["function"]
          : &call;
      if (!function->is_object() || !function->contains("arguments") ||
          !(*function)["arguments"].is_string()) {
        continue;
      }
      Json& arguments = (*function)["arguments"];
      try {
        Json value = parse_json(arguments.get<std::string>(), "arguments");
        parsed = parsed || value.is_object();
        arguments = value.is_object() ? std::move(value) : arguments;
      } catch (const Error&) {
        // Stays as it is: the template decides.
      }
    }
  }
  return parsed;
}

}  // namespace

TokenPool::TokenPool(const Tokenizer& tokenizer, int sequence_length)
    : tokenizer_(tokenizer),
      length_(static_cast<size_t>(sequence_length)),
      encoder_(tokenizer, [this](std::span<const int32_t> ids) {
        tokens_.push(ids);
      }) {}

void TokenPool::add_piece(std::string_view piece, const std::string& where) {
  if (piece.empty()) {
    return;
  }
  if (!in_text_) {
    starts_.push(tokens_.size());
    in_text_ = true;
  }
  where_ = where;
  const Wall::Section section(Wall::Part::tokenize, where, piece.size());
  encoder_.add(piece);
}

void TokenPool::end_text() {
  if (in_text_) {
    const Wall::Section section(
        Wall::Part::tokenize, where_, 8 * StreamEncoder::kWindow);
    encoder_.end();
  }
  in_text_ = false;
}

std::vector<int32_t> TokenPool::encode(
    std::string_view text,
    bool special,
    const std::string& where) const {
  const Wall::Section section(Wall::Part::tokenize, where, text.size());
  return tokenizer_.encode(text, special);
}

std::string TokenPool::render(const Json& messages, const std::string& where)
    const {
  const Wall::Section section(Wall::Part::render, where, text_bytes(messages));
  return tokenizer_.render_chat(messages, false);
}

/// The first tokens of a chat's text, a sequence of them: of a long text only
/// as much is tokenized as they need.
std::vector<int32_t> TokenPool::encode_start(
    const std::string& text,
    const std::string& where) const {
  constexpr size_t kMargin = 64;  // tokens that the cut may have changed
  std::string_view start = text;
  for (size_t bytes = StreamEncoder::kWindow;; bytes *= 4) {
    start = std::string_view(text).substr(0, bytes);
    start.remove_suffix(start.size() < text.size() ? cut_character(start) : 0);
    auto ids = encode(start, false, where);
    if (start.size() == text.size() || ids.size() >= length_ + kMargin) {
      return ids;
    }
  }
}

std::vector<int32_t> TokenPool::encode_chat(
    const Json& messages,
    const std::string& where) const {
  // The template writes the special tokens itself.
  try {
    return encode_start(render(messages, where), where);
  } catch (const Error& error) {
    Json parsed = messages;
    if (error.code() != ErrorCode::corrupt || !parse_arguments(parsed)) {
      throw;
    }
    return encode_start(render(parsed, where), where);
  }
}

std::optional<RowRefusal> TokenPool::add_chat(
    const Json& messages,
    const std::string& where) {
  std::vector<int32_t> ids;
  if (tokenizer_.has_chat_template()) {
    try {
      ids = encode_chat(messages, where);
    } catch (const Error& error) {
      return RowRefusal{kRefusedChat, error.what()};
    }
  } else {
    plain_chat_ = true;
    ids = encode(plain_chat(messages), true, where);
  }
  ids.resize(std::min(ids.size(), length_));
  if (ids.size() < 2) {
    return RowRefusal{"of fewer than two tokens", ""};
  }
  end_file();
  starts_.push(tokens_.size());
  pieces_.push({tokens_.size(), ids.size()});
  tokens_.push(ids);
  open_ = tokens_.size();
  return std::nullopt;
}

void TokenPool::end_file() {
  end_text();
  for (; open_ + length_ <= tokens_.size(); open_ += length_) {
    pieces_.push({open_, length_});
  }
  open_ = tokens_.size();
}

std::vector<std::string> TokenPool::warnings() const {
  std::vector<std::string> texts;
  if (plain_chat_) {
    texts.push_back(
        "the model has no chat template: chats are written as \"role: text\" "
        "lines");
  }
  if (const auto cuts = encoder_.forced_cuts(); cuts > 0) {
    texts.push_back(
        "the text was cut at " + std::to_string(cuts) +
        " places where no word ends for a megabyte: the tokens there are "
        "not those of the whole text");
  }
  return texts;
}

std::vector<std::vector<int32_t>> TokenPool::take(
    std::span<const size_t> order) const {
  std::vector<std::vector<int32_t>> sequences;
  sequences.reserve(order.size());
  for (const size_t index : order) {
    const Piece piece = pieces_.at(index);
    sequences.emplace_back(piece.count);
    tokens_.read(piece.first, sequences.back());
  }
  return sequences;
}

/// The text or chat that a token is of.
size_t TokenPool::source_of(uint64_t token) const {
  size_t low = 0;
  size_t high = starts_.size();
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    (starts_.at(middle) <= token ? low : high) = middle;
  }
  return low;
}

int64_t TokenPool::count_sources(std::span<const size_t> order) const {
  std::vector<size_t> sorted(order.begin(), order.end());
  std::sort(sorted.begin(), sorted.end());
  int64_t count = 0;
  size_t next = 0;  // the first source that was not counted
  for (const size_t index : sorted) {
    const Piece piece = pieces_.at(index);
    const size_t first = std::max(next, source_of(piece.first));
    next = std::max(next, source_of(piece.first + piece.count - 1) + 1);
    count += static_cast<int64_t>(next - std::min(first, next));
  }
  return count;
}

}  // namespace pennyweight
