#include "text/rows/json_scan.h"

#include <algorithm>
#include <array>

#include "core/json.h"

namespace pennyweight {

namespace {

constexpr size_t kWindow = size_t{64} << 10;
constexpr size_t kKeyBytes = 4096;
constexpr size_t kKeys = 20000;
constexpr size_t kDepth = 4096;

bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

bool ends_scalar(char c) {
  return c == ',' || c == ']' || c == '}' || c == '\0' || is_blank(c);
}

int hex_digit(char c) {
  return c >= '0' && c <= '9' ? c - '0'
      : c >= 'a' && c <= 'f'  ? c - 'a' + 10
      : c >= 'A' && c <= 'F'  ? c - 'A' + 10
                              : -1;
}

void append_utf8(std::string& out, uint32_t code) {
  const auto put = [&](uint32_t byte) { out += static_cast<char>(byte); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | (code >> 6));
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | (code >> 18));
    put(0x80 | ((code >> 12) & 0x3F));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

/// Decodes a string's inside byte by byte.
class Unescape {
 public:
  /// False where `c` can't stand there. A closing quote sets done().
  bool add(char c, std::string& out) {
    if (digits_ > 0) {
      return add_digit(c, out);
    }
    if (escaped_) {
      return add_escape(c, out);
    }
    if (high_ && c != '\\') {
      return false;  // half of a pair
    }
    if (c == '\\') {
      escaped_ = true;
    } else if (c == '"') {
      done_ = true;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      return false;
    } else {
      out += c;
    }
    return true;
  }
  bool done() const {
    return done_;
  }

 private:
  bool add_escape(char c, std::string& out) {
    constexpr std::string_view kNames = "\"\\/bfnrt";
    constexpr std::string_view kValues = "\"\\/\b\f\n\r\t";
    escaped_ = false;
    if (c == 'u') {
      digits_ = 4;
      code_ = 0;
      return true;
    }
    const size_t at = kNames.find(c);
    if (at == std::string_view::npos || high_) {
      return false;
    }
    out += kValues[at];
    return true;
  }

  bool add_digit(char c, std::string& out) {
    const int digit = hex_digit(c);
    if (digit < 0) {
      return false;
    }
    code_ = code_ * 16 + static_cast<uint32_t>(digit);
    if (--digits_ > 0) {
      return true;
    }
    const bool low = code_ >= 0xDC00 && code_ < 0xE000;
    if (high_ != 0) {
      if (!low) {
        return false;
      }
      append_utf8(out, 0x10000 + ((high_ - 0xD800) << 10) + (code_ - 0xDC00));
      high_ = 0;
    } else if (low) {
      return false;
    } else if (code_ >= 0xD800 && code_ < 0xDC00) {
      high_ = code_;
    } else {
      append_utf8(out, code_);
    }
    return true;
  }

  bool escaped_ = false;
  bool done_ = false;
  int digits_ = 0;
  uint32_t code_ = 0;
  uint32_t high_ = 0;  // the first half of a pair
};

}  // namespace

JsonScan::JsonScan(const ByteFile& file, uint64_t begin, uint64_t end)
    : file_(file), at_(begin), end_(end) {}

char JsonScan::peek() {
  if (at_ >= end_) {
    return '\0';
  }
  if (at_ < window_at_ || at_ >= window_at_ + window_.size()) {
    const auto bytes = std::min<uint64_t>(kWindow, end_ - at_);
    file_.read(at_, static_cast<size_t>(bytes), window_);
    window_at_ = at_;
    if (window_.empty()) {
      end_ = at_;
      return '\0';
    }
  }
  return window_[static_cast<size_t>(at_ - window_at_)];
}

void JsonScan::skip_blanks() {
  while (is_blank(peek())) {
    ++at_;
  }
}

bool JsonScan::take(char c) {
  if (peek() != c || at_ >= end_) {
    return false;
  }
  ++at_;
  return true;
}

bool JsonScan::skip_string() {
  ++at_;
  while (at_ < end_) {
    const char c = peek();
    ++at_;
    if (c == '"') {
      return true;
    }
    if (c == '\\') {
      ++at_;
    }
  }
  return false;
}

bool JsonScan::skip_value() {
  std::vector<bool> open;  // of each bracket, whether it is a list's
  do {
    skip_blanks();
    const char c = peek();
    if (at_ >= end_) {
      return false;
    }
    if (c == '"') {
      if (!skip_string()) {
        return false;
      }
    } else if (c == '[' || c == '{') {
      if (open.size() == kDepth) {
        return false;
      }
      open.push_back(c == '[');
      ++at_;
    } else if (c == ']' || c == '}') {
      if (open.empty() || open.back() != (c == ']')) {
        return false;
      }
      open.pop_back();
      ++at_;
    } else if (!open.empty() && (c == ',' || c == ':')) {
      ++at_;
    } else if (ends_scalar(c)) {
      return false;
    } else {
      while (!ends_scalar(peek())) {
        ++at_;
      }
    }
  } while (!open.empty());
  return true;
}

std::optional<std::string> JsonScan::take_key() {
  const uint64_t begin = at_;
  if (peek() != '"' || !skip_string() || at_ - begin > kKeyBytes) {
    return std::nullopt;
  }
  try {
    const auto raw = file_.read(begin, static_cast<size_t>(at_ - begin));
    return parse_json(raw, "a key").get<std::string>();
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

std::optional<std::vector<std::pair<std::string, JsonExtent>>> scan_object(
    JsonScan& scan) {
  std::vector<std::pair<std::string, JsonExtent>> members;
  if (!scan.take('{')) {
    return std::nullopt;
  }
  scan.skip_blanks();
  if (scan.take('}')) {
    return members;
  }
  for (;;) {
    scan.skip_blanks();
    auto key = scan.take_key();
    scan.skip_blanks();
    if (!key || !scan.take(':') || members.size() == kKeys) {
      return std::nullopt;
    }
    scan.skip_blanks();
    JsonExtent extent{scan.at(), 0, scan.peek()};
    if (!scan.skip_value()) {
      return std::nullopt;
    }
    extent.end = scan.at();
    std::erase_if(
        members, [&](const auto& member) { return member.first == *key; });
    members.emplace_back(std::move(*key), extent);
    scan.skip_blanks();
    if (scan.take('}')) {
      return members;
    }
    if (!scan.take(',')) {
      return std::nullopt;
    }
  }
}

bool scan_list(
    JsonScan& scan,
    const std::function<bool(const JsonExtent&)>& each) {
  if (!scan.take('[')) {
    return false;
  }
  scan.skip_blanks();
  if (scan.take(']')) {
    return true;
  }
  for (;;) {
    scan.skip_blanks();
    JsonExtent extent{scan.at(), 0, scan.peek()};
    if (!scan.skip_value()) {
      return false;
    }
    extent.end = scan.at();
    if (!each(extent)) {
      return true;
    }
    scan.skip_blanks();
    if (scan.take(']')) {
      return true;
    }
    if (!scan.take(',')) {
      return false;
    }
  }
}

bool decode_string(
    const ByteFile& file,
    const JsonExtent& extent,
    const std::function<void(std::string_view)>& each) {
  Unescape unescape;
  Utf8Check check;
  std::string piece;
  for (uint64_t at = extent.begin + 1; at < extent.end && !unescape.done();) {
    const auto bytes = std::min<uint64_t>(kWindow, extent.end - at);
    for (const char c : file.read(at, static_cast<size_t>(bytes))) {
      if (unescape.done() || !unescape.add(c, piece)) {
        return false;
      }
    }
    at += bytes;
    // A character that the window cut waits for its rest.
    const size_t open = unescape.done() ? 0 : cut_character(piece);
    const auto whole = std::string_view(piece).substr(0, piece.size() - open);
    check.add(whole);
    if (check.broken(unescape.done())) {
      return false;
    }
    if (each && !whole.empty()) {
      each(whole);
    }
    piece.erase(0, whole.size());
  }
  return unescape.done();
}

}  // namespace pennyweight
