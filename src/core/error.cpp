#include "core/error.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>

namespace pennyweight {

std::string_view error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
      return "invalid_argument";
    case ErrorCode::not_supported:
      return "not_supported";
    case ErrorCode::not_found:
      return "not_found";
    case ErrorCode::corrupt:
      return "corrupt";
    case ErrorCode::io:
      return "io";
    case ErrorCode::numeric:
      return "numeric";
    case ErrorCode::cancelled:
      return "cancelled";
  }
  return "unknown";
}

Error::Error(ErrorCode code, std::string_view where, std::string_view what)
    : std::runtime_error(
          "[" + std::string(where) + "] " + one_line(what, 1000)),
      code_(code) {}

std::string reason_of(const Error& error) {
  const std::string what = error.what();
  const auto text = what.starts_with('[') ? what.find("] ") : std::string::npos;
  return text == std::string::npos ? what : what.substr(text + 2);
}

Error about(
    std::string_view where,
    const std::string& subject,
    const Error& error) {
  return Error(error.code(), where, subject + ": " + reason_of(error));
}

std::string one_line(std::string_view text, size_t limit) {
  std::string line;
  line.reserve(std::min(text.size(), limit));
  for (size_t i = 0; i < text.size(); ++i) {
    if (line.size() >= limit) {
      line += "...";
      break;
    }
    auto byte = static_cast<unsigned char>(text[i]);
    auto next =
        static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    if (byte == 0xc2 && next >= 0x80 && next < 0xa0) {
      line += ' ';  // U+0080 to U+009F, which terminals obey too
      ++i;
    } else {
      line += (byte < 0x20 || byte == 0x7f) ? ' ' : text[i];
    }
  }
  return line;
}

namespace {

struct CodePoint {
  uint32_t value = 0;
  size_t size = 0;  // in bytes; 0: no UTF-8
};

CodePoint read_code_point(std::string_view text) {
  const auto first = static_cast<unsigned char>(text[0]);
  if (first < 0x80) {
    return {first, 1};
  }
  const size_t size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  if (first < 0xc2 || first > 0xf4 || text.size() < size) {
    return {};
  }
  uint32_t value = first & (0x7fu >> size);
  for (size_t i = 1; i < size; ++i) {
    const auto next = static_cast<unsigned char>(text[i]);
    if ((next & 0xc0) != 0x80) {
      return {};
    }
    value = value << 6 | (next & 0x3f);
  }
  const bool surrogate = value >= 0xd800 && value < 0xe000;
  return value < kLeast[size] || value > 0x10ffff || surrogate
      ? CodePoint{}
      : CodePoint{value, size};
}

// Of Unicode: controls, ends of lines and paragraphs, marks and overrides of
// the direction of text.
bool is_unseen(uint32_t value) {
  return value < 0x20 || (value >= 0x7f && value < 0xa0) || value == 0x61c ||
      value == 0x200e || value == 0x200f ||
      (value >= 0x2028 && value <= 0x202e) ||
      (value >= 0x2066 && value <= 0x2069) || value == 0xfeff;
}

std::string escape(uint32_t value) {
  switch (value) {
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      break;
  }
  char text[16];
  std::snprintf(
      text, sizeof(text), value < 0x80 ? "\\x%02x" : "\\u%04x", value);
  return text;
}

}  // namespace

std::string shown(std::string_view text) {
  std::string line;
  line.reserve(text.size());
  while (!text.empty()) {
    const auto point = read_code_point(text);
    if (point.size == 0) {
      char byte[8];
      std::snprintf(
          byte, sizeof(byte), "\\x%02x", static_cast<unsigned char>(text[0]));
      line += byte;
      text.remove_prefix(1);
      continue;
    }
    line += is_unseen(point.value) ? escape(point.value)
                                   : std::string(text.substr(0, point.size));
    text.remove_prefix(point.size);
  }
  return line;
}

Error io_error(
    std::string_view where,
    std::string_view action,
    const std::string& path,
    int error_number) {
  std::string what =
      std::string(action) + " " + path + ": " + std::strerror(error_number);
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
      what += "; free some space and run the command again";
      break;
    case EACCES:
    case EPERM:
    case EROFS:
      what += "; choose a path that you may write to, or change its mode";
      break;
    default:
      break;
  }
  auto code = error_number == ENOENT ? ErrorCode::not_found : ErrorCode::io;
  return Error(code, where, what);
}

}  // namespace pennyweight
