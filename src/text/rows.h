#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace pennyweight {

/// One row of a data set: text, or a chat of {"role", "content"} messages.
struct Row {
  std::string text;
  Json messages;  // null for text
};

/// Called for each row; false stops the reading.
using RowFn = std::function<bool(Row)>;

/// The columns that to_row understands.
const std::vector<std::string>& row_columns();

/// A row from any of the usual shapes: `text`; `messages` (content a string
/// or a list of typed parts) or `conversations` (from/value too); `prompt` and
/// `completion` (strings or messages); `instruction`, `input`, `output`.
/// `where` names file and row in the corrupt Error.
Row to_row(const Json& json, const std::string& where);

/// True for .json, .jsonl and .parquet.
bool is_row_file(const std::filesystem::path& path);

/// Reads rows in the file's order: a .json list (or an object with one list
/// of rows), .jsonl lines, or .parquet. not_found, io, or corrupt with the
/// line or row.
void read_rows(const std::filesystem::path& path, const RowFn& each);

/// The whole file as UTF-8 text, a byte order mark dropped and line ends made
/// "\n", as Python's text mode reads it. corrupt with the byte where it isn't
/// UTF-8.
std::string read_text(const std::filesystem::path& path);

/// The first byte at which `text` isn't UTF-8, npos where it all is.
size_t find_invalid_utf8(std::string_view text);

}  // namespace pennyweight
