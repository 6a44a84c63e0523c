#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace pennyweight {

enum class ErrorCode {
  invalid_argument,  // the caller asked for something that makes no sense
  not_supported,     // sensible, but not something we can do
  not_found,         // a file, tensor, revision that does not exist
  corrupt,           // input that breaks its own format
  io,                // the system refused: disk full, permission, network
  numeric,           // non-finite or otherwise unusable numbers
  cancelled,         // stopped by the user
};

std::string_view error_code_name(ErrorCode code);

/// The one exception type. Its text is a single line,
/// `[where] what is wrong; what to do`, fit to be shown to a user as it is.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, std::string_view where, std::string_view what);

  ErrorCode code() const {
    return code_;
  }

 private:
  ErrorCode code_;
};

/// What an Error says, without its [where].
std::string reason_of(const Error& error);

/// The error again, by `where`, its text beginning with what it is about.
Error about(
    std::string_view where,
    const std::string& subject,
    const Error& error);

/// `text` on one line and without control characters, at most `limit` bytes:
/// for quoting untrusted names and messages inside an Error.
std::string one_line(std::string_view text, size_t limit = 300);

/// `text` as it may be shown on a terminal or in a report: control characters
/// and what turns the order of text are written as escapes (\n, \x1b, \u202e),
/// and so are bytes that are no UTF-8. For paths and names, which hold whatever
/// they like.
std::string shown(std::string_view text);

// An Error of the code that the name says.
inline Error argument_error(std::string_view where, std::string_view what) {
  return {ErrorCode::invalid_argument, where, what};
}
inline Error corrupt_error(std::string_view where, std::string_view what) {
  return {ErrorCode::corrupt, where, what};
}
inline Error not_found_error(std::string_view where, std::string_view what) {
  return {ErrorCode::not_found, where, what};
}
inline Error not_supported_error(
    std::string_view where,
    std::string_view what) {
  return {ErrorCode::not_supported, where, what};
}
inline Error numeric_error(std::string_view where, std::string_view what) {
  return {ErrorCode::numeric, where, what};
}

/// io Error for a failed system call on `path`, with errno's text and, for a
/// full disk or missing permission, what to do about it.
Error io_error(
    std::string_view where,
    std::string_view action,
    const std::string& path,
    int error_number);

}  // namespace pennyweight
