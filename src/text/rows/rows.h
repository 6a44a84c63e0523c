#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/json.h"

namespace pennyweight {

/// Text in pieces, each given to the function.
using LongText =
    std::function<void(const std::function<void(std::string_view)>&)>;

/// One row of a data set: text, or a chat of {"role", "content"} messages.
struct Row {
  std::string text;
  Json messages;            // null for text
  std::string where = {};   // file and row, in words
  LongText long_text = {};  // in place of `text` where that is over 8 MiB
};

/// Called for each row; false stops the reading.
using RowFn = std::function<bool(Row)>;

/// A row that can't be used.
class RowError : public Error {
 public:
  RowError(
      const std::string& where,
      const std::string& reason,
      const std::string& detail = "");

  /// File and row, as in "a.jsonl, line 3".
  const std::string& where() const {
    return where_;
  }
  /// A short phrase to count by, as in "with null text".
  const std::string& reason() const {
    return reason_;
  }
  const std::string& detail() const {
    return detail_;
  }

 private:
  std::string where_;
  std::string reason_;
  std::string detail_;
};

/// Called for each row that can't be used.
using BadRowFn = std::function<void(const RowError&)>;

/// The columns that to_row understands.
const std::vector<std::string>& row_columns();

/// A row from any of the usual shapes: `text`; `messages` (content a string,
/// null or a list of typed parts, of which text counts) or `conversations`
/// (from/value too), as lists or as JSON in a string, with a `system` column
/// or without; `prompt` and `completion` (strings or messages); `instruction`,
/// `input`, `output`; a list of messages; and any of these under `row`, where
/// the hub's viewer puts them. RowError for another.
Row to_row(const Json& json, const std::string& where);

/// Rows of more bytes than this are not held: of those only text is read, and
/// that in pieces.
inline constexpr size_t kLongRow = size_t{8} << 20;

/// Reads rows in the file's order: a .json list (or an object with a list of
/// rows, or with one row), JSON lines under any of these names, or .parquet.
/// A row that can't be used, broken lines and chats of over 8 MiB included,
/// goes to `bad` and is left out; without `bad` it is thrown. Memory is
/// bounded, however long the file and its rows are. not_found, io, or corrupt
/// for a file that can't be read as a whole.
void read_rows(
    const std::filesystem::path& path,
    const RowFn& each,
    const BadRowFn& bad = {});

/// The first byte at which `text` isn't UTF-8, npos where it all is.
size_t find_invalid_utf8(std::string_view text);

}  // namespace pennyweight
