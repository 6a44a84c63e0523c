#include "text/token_pool.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "text/choose.h"

namespace pennyweight {

namespace {

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
    : tokenizer_(tokenizer), length_(static_cast<size_t>(sequence_length)) {}

void TokenPool::add_text(std::string_view text) {
  if (text.empty()) {
    return;
  }
  starts_.push_back(tokens_.size());
  auto ids = tokenizer_.encode(text);
  tokens_.insert(tokens_.end(), ids.begin(), ids.end());
}

std::vector<int32_t> TokenPool::encode_chat(const Json& messages) const {
  // The template writes the special tokens itself.
  try {
    return tokenizer_.encode(tokenizer_.render_chat(messages, false), false);
  } catch (const Error& error) {
    Json parsed = messages;
    if (error.code() != ErrorCode::corrupt || !parse_arguments(parsed)) {
      throw;
    }
    return tokenizer_.encode(tokenizer_.render_chat(parsed, false), false);
  }
}

std::optional<RowRefusal> TokenPool::add_chat(const Json& messages) {
  std::vector<int32_t> ids;
  if (tokenizer_.has_chat_template()) {
    try {
      ids = encode_chat(messages);
    } catch (const Error& error) {
      return RowRefusal{kRefusedChat, error.what()};
    }
  } else {
    plain_chat_ = true;
    ids = tokenizer_.encode(plain_chat(messages));
  }
  ids.resize(std::min(ids.size(), length_));
  if (ids.size() < 2) {
    return RowRefusal{"of fewer than two tokens", ""};
  }
  end_file();
  starts_.push_back(tokens_.size());
  pieces_.push_back({tokens_.size(), ids.size()});
  tokens_.insert(tokens_.end(), ids.begin(), ids.end());
  open_ = tokens_.size();
  return std::nullopt;
}

void TokenPool::end_file() {
  for (; open_ + length_ <= tokens_.size(); open_ += length_) {
    pieces_.push_back({open_, length_});
  }
  open_ = tokens_.size();
}

std::string TokenPool::too_few(const std::string& name) const {
  if (tokens_.empty()) {
    return name + " holds no text";
  }
  return name + " holds only " + std::to_string(tokens_.size()) +
      " tokens, too few for one sequence of " + std::to_string(length_) +
      "; give more text or a smaller --sequence-length";
}

int64_t TokenPool::count_sources(const std::vector<Piece>& pieces) const {
  std::set<size_t> sources;
  for (const Piece& piece : pieces) {
    auto it = std::upper_bound(starts_.begin(), starts_.end(), piece.first) - 1;
    for (; it != starts_.end() && *it < piece.first + piece.count; ++it) {
      sources.insert(static_cast<size_t>(it - starts_.begin()));
    }
  }
  return static_cast<int64_t>(sources.size());
}

TokenData TokenPool::take(
    const LoadDataOptions& options,
    const std::string& name) const {
  if (pieces_.empty()) {
    throw Error(ErrorCode::invalid_argument, "data", too_few(name));
  }
  bool all = options.num_samples < 0;
  size_t wanted =
      all ? pieces_.size() : static_cast<size_t>(options.num_samples);
  TokenData data;
  data.sequence_length = options.sequence_length;
  data.source = name;
  std::vector<Piece> chosen;
  std::vector<size_t> order(std::min(wanted, pieces_.size()));
  if (options.in_order) {
    std::iota(order.begin(), order.end(), size_t{0});
  } else {
    order = choose(pieces_.size(), wanted, options.seed);
  }
  for (size_t index : order) {
    const Piece& piece = pieces_[index];
    chosen.push_back(piece);
    auto first = tokens_.begin() + static_cast<std::ptrdiff_t>(piece.first);
    data.sequences.emplace_back(
        first, first + static_cast<std::ptrdiff_t>(piece.count));
    data.tokens += static_cast<int64_t>(piece.count);
  }
  data.sources = count_sources(chosen);
  if (pieces_.size() < wanted) {
    data.warnings.push_back(
        name + " gives only " + std::to_string(pieces_.size()) + " of the " +
        std::to_string(wanted) + " sequences asked for");
  }
  if (plain_chat_) {
    data.warnings.push_back(
        "the model has no chat template: chats are written as \"role: text\" "
        "lines");
  }
  return data;
}

}  // namespace pennyweight
