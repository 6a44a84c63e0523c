#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/byte_file.h"

namespace pennyweight {

/// Walks over JSON that is too long to be held: finds where values begin and
/// end without building them. Brackets and strings are checked, what stands
/// between them is not: a part that is parsed afterwards is.
class JsonScan {
 public:
  /// Of the bytes [begin, end) of a file.
  JsonScan(const ByteFile& file, uint64_t begin, uint64_t end);

  uint64_t at() const {
    return at_;
  }
  void go(uint64_t at) {
    at_ = at;
  }
  /// The next byte; '\0' at the end.
  char peek();
  void skip_blanks();
  /// Passes over `c`; false where something else stands.
  bool take(char c);
  /// Passes over one value of any kind; false where it is broken or nests
  /// deeper than 4,096 levels.
  bool skip_value();
  /// Passes over the string that begins here and gives it; nothing where there
  /// is none, it is broken, or longer than 4 KiB.
  std::optional<std::string> take_key();

 private:
  bool skip_string();

  const ByteFile& file_;
  uint64_t at_;
  uint64_t end_;
  uint64_t window_at_ = 0;
  std::string window_;
};

/// Where a value stands in a file.
struct JsonExtent {
  uint64_t begin = 0;
  uint64_t end = 0;
  char first = '\0';  // its first byte: what kind it is of

  uint64_t size() const {
    return end - begin;
  }
};

/// The members of the object at the scan's place, in order; the last of a
/// repeated key counts, as in Python. Nothing where it is broken or has more
/// than 20,000 keys.
std::optional<std::vector<std::pair<std::string, JsonExtent>>> scan_object(
    JsonScan& scan);

/// Calls `each` for the elements of the list at the scan's place, until it
/// says false. False where the list is broken.
bool scan_list(
    JsonScan& scan,
    const std::function<bool(const JsonExtent&)>& each);

/// Decodes the JSON string at `extent` and gives it to `each` in pieces of
/// whole characters. False, with what came before given, where it is no valid
/// string; without `each` it is only tried.
bool decode_string(
    const ByteFile& file,
    const JsonExtent& extent,
    const std::function<void(std::string_view)>& each);

}  // namespace pennyweight
