#include "core/error.h"

#include <cerrno>
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

Error about(
    std::string_view where,
    const std::string& subject,
    const Error& error) {
  std::string what = error.what();
  auto text = what.starts_with('[') ? what.find("] ") : std::string::npos;
  return Error(
      error.code(),
      where,
      subject + ": " +
          (text == std::string::npos ? what : what.substr(text + 2)));
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
