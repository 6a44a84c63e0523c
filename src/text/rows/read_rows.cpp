#include "text/rows/rows.h"

#include <algorithm>
#include <optional>

#include "core/files/atomic_file.h"
#include "core/json.h"
#include "text/byte_file.h"
#include "text/data_files.h"
#include "text/rows/long_rows.h"
#include "text/rows/row_sink.h"
#include "text/rust_text.h"
#include "text/wall.h"

namespace pennyweight {

namespace {

constexpr size_t kFileLimit = size_t{256} << 20;
constexpr size_t kParquetChunk = size_t{1} << 20;
/// Text compresses ten times, repetitive rows a hundred times: what expands
/// further than this is no text, and could go on for hours.
constexpr uint64_t kMostExpanded = 1000;
constexpr uint64_t kFreeBytes = uint64_t{16} << 20;  // whatever the file's size
constexpr const char* kBlanks = " \t\r\n";

size_t utf8_length(unsigned char lead) {
  if (lead < 0x80) {
    return 1;
  }
  if (lead >= 0xC2 && lead < 0xE0) {
    return 2;
  }
  if (lead >= 0xE0 && lead < 0xF0) {
    return 3;
  }
  return lead >= 0xF0 && lead < 0xF5 ? 4 : 0;
}

std::string with_unix_lines(std::string text) {
  if (text.find('\r') == std::string::npos) {
    return text;
  }
  std::string unix_text;
  unix_text.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\r') {
      unix_text += text[i];
    } else if (i + 1 == text.size() || text[i + 1] != '\n') {
      unix_text += '\n';
    }
  }
  return unix_text;
}

/// Counts lines from `line`; false where the reading is to stop.
bool read_lines(
    std::string_view text,
    const std::string& name,
    const char* unit,
    size_t& line,
    const RowSink& sink) {
  while (!text.empty()) {
    size_t end = text.find('\n');
    std::string_view part = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    ++line;
    if (part.find_first_not_of(kBlanks) == std::string_view::npos) {
      continue;
    }
    std::string where = name + ", " + unit + " " + std::to_string(line);
    if (!sink.give_line(part, where)) {
      return false;
    }
  }
  return true;
}

bool is_usable(const Json& json) {
  try {
    to_row(json, "");
    return true;
  } catch (const RowError&) {
    return false;
  }
}

bool has_usable_row(const Json& list) {
  for (size_t i = 0; i < std::min(list.size(), kTriedRows); ++i) {
    if (is_usable(list[i])) {
      return true;
    }
  }
  return false;
}

/// The list of rows in an object: {"data": [...]}, what the hub's viewer gives
/// under "rows", the training split, the column "text", or a list of objects
/// under a key of any name. Null where there is none.
const Json* find_list(const Json& object) {
  const auto is_list = [](const Json& value) {
    return value.is_array() && !value.empty() &&
        (value[0].is_object() || value[0].is_string() || value[0].is_array());
  };
  for (const char* key : {"rows", "data", "train", "text"}) {
    const auto it = object.find(key);
    if (it != object.end() && is_list(*it)) {
      return &*it;
    }
  }
  const Json* first = nullptr;
  for (const auto& [key, value] : object.items()) {
    if (!is_list(value) || !value[0].is_object() || key == "messages" ||
        key == "conversations") {
      continue;
    }
    if (has_usable_row(value)) {
      return &value;
    }
    first = first ? first : &value;
  }
  return first;
}

/// A whole file's JSON: a list of rows, or an object with one, or a row.
void read_document(
    const fs::path& path,
    const Json& json,
    const RowSink& sink) {
  if (is_usable(json)) {
    sink.give(json, path.string());
    return;
  }
  const Json* list = json.is_object() ? find_list(json) : &json;
  if (!list) {
    to_row(json, path.string());  // throws: it says what is missing
    return;
  }
  if (!list->is_array()) {
    throw RowError(path.string(), "that is no list of rows");
  }
  for (size_t i = 0; i < list->size(); ++i) {
    std::string where = path.string() + ", row " + std::to_string(i + 1);
    if (!sink.give((*list)[i], where)) {
      return;
    }
  }
}

/// A file of JSON lines may be called .json.
bool begins_with_a_row(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(kBlanks), text.size()));
  const size_t end = text.find('\n');
  if (end == std::string_view::npos || !text.starts_with("{")) {
    return false;
  }
  try {
    return parse_json(text.substr(0, end), "the first line").is_object();
  } catch (const Error&) {
    return false;
  }
}

void read_json_rows(const fs::path& path, const RowSink& sink) {
  const std::string text = read_text(path);
  if (text.find_first_not_of(kBlanks) == std::string::npos) {
    return;
  }
  Json json;
  try {
    json = parse_json(text, path.string());
  } catch (const Error&) {
    if (!begins_with_a_row(text)) {
      throw;
    }
    size_t line = 0;
    read_lines(text, path.string(), "line", line, sink);
    return;
  }
  read_document(path, json, sink);
}

/// The list that a file of JSON lines by its name holds; null for lines.
Json list_in_lines(std::string_view text, const fs::path& path) {
  const size_t start = text.find_first_not_of(kBlanks);
  if (start == std::string_view::npos || text[start] != '[' ||
      find_invalid_utf8(text) != std::string_view::npos) {
    return nullptr;
  }
  try {
    return parse_json(text, path.string());
  } catch (const Error&) {
    return nullptr;  // each line is a list
  }
}

void read_line_rows(const fs::path& path, const RowSink& sink) {
  std::string text = read_file(path, kFileLimit);
  text.erase(0, text.starts_with("\xEF\xBB\xBF") ? 3 : 0);
  text = with_unix_lines(std::move(text));
  const Json list = list_in_lines(text, path);
  if (!list.is_null()) {
    read_document(path, list, sink);
    return;
  }
  size_t line = 0;
  read_lines(text, path.string(), "line", line, sink);
}

ParquetHandle open_parquet(
    const std::string& name,
    const std::string& columns) {
  const Wall::Section section(Wall::Part::read, name, 8 * kParquetChunk);
  PwParquet* handle = nullptr;
  RustBytes error;
  const int32_t status = pw_parquet_open(
      rust_data(name),
      name.size(),
      rust_data(columns),
      columns.size(),
      &handle,
      error.out());
  ParquetHandle rows(handle);
  check_rust(status, error, "data", name);
  return rows;
}

void read_parquet_rows(const fs::path& path, const RowSink& sink) {
  std::string columns;
  for (const std::string& name : row_columns()) {
    columns += name + "\n";
  }
  std::string name = path.string();
  const auto rows = open_parquet(name, columns);
  const uint64_t most =
      std::max(kFreeBytes, kMostExpanded * ByteFile(path).size());
  uint64_t expanded = 0;
  for (size_t row = 0;;) {
    RustBytes out;
    RustBytes error;
    {
      const Wall::Section section(Wall::Part::read, name, 8 * kParquetChunk);
      const int32_t status =
          pw_parquet_next(rows.get(), kParquetChunk, out.out(), error.out());
      check_rust(status, error, "data", name);
    }
    expanded += out.size();
    if (expanded > most) {
      throw Error(
          ErrorCode::corrupt,
          "data",
          name + " expands to more than " + std::to_string(kMostExpanded) +
              " times its size; it is damaged or made to do harm");
    }
    if (out.size() == 0 || !read_lines(out.view(), name, "row", row, sink)) {
      return;
    }
  }
}

}  // namespace

void read_rows(const fs::path& path, const RowFn& each, const BadRowFn& bad) {
  const RowSink sink(each, bad);
  if (is_parquet_name(path)) {
    read_parquet_rows(path, sink);
    return;
  }
  const bool document = path.extension().string().size() == 5;  // .json
  const ByteFile file(path);
  if (file.size() > kLongRow) {
    document ? read_long_document(file, sink) : read_long_lines(file, sink);
  } else {
    document ? read_json_rows(path, sink) : read_line_rows(path, sink);
  }
}

std::string read_text(const fs::path& path) {
  std::string text = read_file(path, kFileLimit);
  const size_t mark = text.starts_with("\xEF\xBB\xBF") ? 3 : 0;
  text.erase(0, mark);
  if (size_t at = find_invalid_utf8(text); at != std::string::npos) {
    throw Error(
        ErrorCode::corrupt,
        "data",
        path.string() + " is not valid UTF-8 at byte " +
            std::to_string(at + mark) + "; convert it to UTF-8");
  }
  return with_unix_lines(std::move(text));
}

size_t find_invalid_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    auto lead = static_cast<unsigned char>(text[i]);
    size_t length = utf8_length(lead);
    if (length == 0 || i + length > text.size()) {
      return i;
    }
    for (size_t k = 1; k < length; ++k) {
      auto next = static_cast<unsigned char>(text[i + k]);
      // The second byte's range keeps out overlong forms, surrogates and
      // what lies past U+10FFFF (Unicode 15, table 3-7).
      unsigned low = 0x80;
      unsigned high = 0xBF;
      if (k == 1) {
        low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
        high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
      }
      if (next < low || next > high) {
        return i;
      }
    }
    i += length;
  }
  return std::string_view::npos;
}

}  // namespace pennyweight
