#include "text/rows/json_rows.h"

#include <optional>

#include "core/json.h"
#include "text/rows/json_scan.h"

namespace pennyweight {

namespace {

constexpr size_t kRowPiece = size_t{256} << 10;
constexpr const char* kTooLong = "of over 8 MiB that is not text alone";

using Members = std::vector<std::pair<std::string, JsonExtent>>;

const JsonExtent* find(const Members& members, const char* key) {
  for (const auto& [name, extent] : members) {
    if (name == key && extent.first != 'n') {
      return &extent;
    }
  }
  return nullptr;
}

std::string text_at(const ByteFile& file, const JsonExtent& extent) {
  return file.read(extent.begin, static_cast<size_t>(extent.size()));
}

/// A row whose text is this JSON string.
Row text_row(
    const ByteFile& file,
    const JsonExtent& text,
    const std::string& where) {
  if (!decode_string(file, text, {})) {
    throw RowError(where, "that is not valid JSON or UTF-8");
  }
  Row row{"", nullptr, where};
  row.long_text = [&file, text](const auto& each) {
    decode_string(file, text, each);
  };
  return row;
}

/// The row of an object whose members were found.
Row members_row(
    const ByteFile& file,
    const Members& members,
    const std::string& where) {
  const JsonExtent* text = find(members, "text");
  if (!text || text->first != '"' || find(members, "messages") ||
      find(members, "conversations")) {
    throw RowError(where, kTooLong);
  }
  return text_row(file, *text, where);
}

Row long_row(
    const ByteFile& file,
    const JsonExtent& extent,
    const std::string& where) {
  if (extent.first == '"') {
    return text_row(file, extent, where);
  }
  JsonScan scan(file, extent.begin, extent.end);
  const auto members = scan_object(scan);
  if (!members) {
    throw RowError(
        where, extent.first == '[' ? kTooLong : "that is not valid JSON");
  }
  return members_row(file, *members, where);
}

bool give(
    const ByteFile& file,
    const JsonExtent& extent,
    const std::string& where,
    const RowSink& sink) {
  if (extent.size() > kLongRow) {
    return sink.give_made([&] { return long_row(file, extent, where); });
  }
  return sink.give_line(text_at(file, extent), where);
}

/// The lines from `begin` on, ended by \n, \r\n or \r, without the blanks
/// before their first byte.
class Lines {
 public:
  Lines(const ByteFile& file, uint64_t begin) : file_(file), next_(begin) {}

  /// False at the file's end.
  bool next(JsonExtent& line) {
    if (next_ >= file_.size()) {
      return false;
    }
    line = {next_, 0, '\0'};
    uint64_t at = next_;
    for (;; ++at) {
      const char c = byte(at);
      if (at >= file_.size() || c == '\n' || c == '\r') {
        break;
      }
      if (line.first == '\0' && c != ' ' && c != '\t') {
        line.first = c;
        line.begin = at;
      }
    }
    line.end = at;
    next_ = at + 1;
    if (byte(at) == '\r' && byte(at + 1) == '\n') {
      ++next_;
    }
    return true;
  }

 private:
  char byte(uint64_t at) {
    if (at < window_at_ || at >= window_at_ + window_.size()) {
      file_.read(at, kRowPiece, window_);
      window_at_ = at;
    }
    return window_.empty() ? '\0'
                           : window_[static_cast<size_t>(at - window_at_)];
  }

  const ByteFile& file_;
  uint64_t next_;
  uint64_t window_at_ = 0;
  std::string window_;
};

void read_lines(const ByteFile& file, uint64_t begin, const RowSink& sink) {
  Lines lines(file, begin);
  JsonExtent line;
  for (size_t number = 1; lines.next(line); ++number) {
    if (line.first != '\0' &&
        !give(
            file,
            line,
            file.name() + ", line " + std::to_string(number),
            sink)) {
      return;
    }
  }
}

/// Behind a byte order mark.
uint64_t first_byte(const ByteFile& file) {
  return file.read(0, 3) == "\xEF\xBB\xBF" ? 3 : 0;
}

void read_list(const ByteFile& file, uint64_t begin, const RowSink& sink) {
  JsonScan scan(file, begin, file.size());
  size_t row = 0;
  const bool whole = scan_list(scan, [&](const JsonExtent& extent) {
    const auto where = file.name() + ", row " + std::to_string(++row);
    return give(file, extent, where, sink);
  });
  if (!whole) {
    throw corrupt_error(
        "data",
        file.name() + ": the list is broken at byte " +
            std::to_string(scan.at()));
  }
}

bool is_usable(const ByteFile& file, const JsonExtent& extent) {
  try {
    if (extent.size() > kLongRow) {
      long_row(file, extent, "");
    } else {
      to_row(parse_json(text_at(file, extent), ""), "");
    }
    return true;
  } catch (const Error&) {
    return false;
  }
}

/// Of a list, the first bytes' kind and whether one of its first elements is a
/// usable row.
struct ListLook {
  char first = '\0';
  bool usable = false;
};

ListLook look(const ByteFile& file, const JsonExtent& list) {
  ListLook seen;
  size_t tried = 0;
  JsonScan scan(file, list.begin, list.end);
  scan_list(scan, [&](const JsonExtent& extent) {
    seen.first = tried == 0 ? extent.first : seen.first;
    seen.usable = seen.usable || is_usable(file, extent);
    return !seen.usable && ++tried < kTriedRows;
  });
  return seen;
}

/// The list of rows in an object: {"data": [...]}, what the hub's viewer gives
/// under "rows", the training split, the column "text", or a list of objects
/// under a key of any name. Null where there is none.
const JsonExtent* find_list(const ByteFile& file, const Members& members) {
  for (const char* key : {"rows", "data", "train", "text"}) {
    const JsonExtent* list = find(members, key);
    if (list && list->first == '[') {
      const char first = look(file, *list).first;
      if (first == '{' || first == '"' || first == '[') {
        return list;
      }
    }
  }
  const JsonExtent* found = nullptr;
  for (const auto& [key, extent] : members) {
    if (extent.first != '[' || key == "messages" || key == "conversations") {
      continue;
    }
    const auto seen = look(file, extent);
    if (seen.first == '{' && seen.usable) {
      return &extent;
    }
    found = !found && seen.first == '{' ? &extent : found;
  }
  return found;
}

/// Whether what is short enough to be parsed is JSON, and not only has its
/// brackets closed.
bool is_json(const ByteFile& file, const JsonExtent& extent) {
  try {
    if (extent.size() <= kLongRow) {
      parse_json(text_at(file, extent), "");
    }
    return true;
  } catch (const Error&) {
    return false;
  }
}

/// A whole file's value: a row, a list of rows, or an object that holds one.
void read_value(
    const ByteFile& file,
    const JsonExtent& value,
    const RowSink& sink) {
  if (value.size() <= kLongRow && is_usable(file, value)) {
    give(file, value, file.name(), sink);
    return;
  }
  std::optional<Members> members;
  const JsonExtent* list = value.first == '[' ? &value : nullptr;
  if (value.first == '{') {
    JsonScan scan(file, value.begin, value.end);
    members = scan_object(scan);
    list = members ? find_list(file, *members) : nullptr;
  } else if (!list) {
    throw RowError(file.name(), "that is no list of rows");
  }
  if (list) {
    read_list(file, list->begin, sink);
    return;
  }
  if (value.size() <= kLongRow) {
    // Throws, and says what is missing.
    to_row(parse_json(text_at(file, value), ""), file.name());
    return;
  }
  sink.give_made([&] { return long_row(file, value, file.name()); });
}

/// The value that begins a file behind blanks; its end is 0 where it is broken
/// or not all that the file holds.
JsonExtent only_value(const ByteFile& file) {
  JsonScan scan(file, first_byte(file), file.size());
  scan.skip_blanks();
  JsonExtent value{scan.at(), 0, scan.peek()};
  const bool whole = scan.skip_value();
  const uint64_t end = scan.at();
  scan.skip_blanks();
  value.end = whole && scan.at() >= file.size() ? end : 0;
  return value;
}

/// Whether a whole object stands first, with more behind it.
bool begins_with_a_row(const ByteFile& file, const JsonExtent& value) {
  JsonScan scan(file, value.begin, file.size());
  if (!scan_object(scan)) {
    return false;
  }
  const uint64_t end = scan.at();
  scan.skip_blanks();
  return scan.at() < file.size() && is_json(file, {value.begin, end, '{'});
}

}  // namespace

void read_json_lines(const ByteFile& file, const RowSink& sink) {
  const auto value = only_value(file);
  if (value.first == '[' && value.end > 0 && is_json(file, value)) {
    read_value(file, value, sink);
  } else {
    read_lines(file, first_byte(file), sink);
  }
}

void read_json_document(const ByteFile& file, const RowSink& sink) {
  require_utf8(file);
  const auto value = only_value(file);
  if (value.begin >= file.size()) {
    return;
  }
  if (value.end > 0 && is_json(file, value)) {
    read_value(file, value, sink);
  } else if (begins_with_a_row(file, value)) {
    read_lines(file, first_byte(file), sink);  // JSON lines by another name
  } else if (file.size() <= kLongRow) {
    parse_json(file.read(0, kLongRow), file.name());  // throws, and says more
  } else if (value.first == '[') {
    read_list(file, value.begin, sink);  // throws where it is broken
  } else {
    throw corrupt_error("data", file.name() + " is not valid JSON");
  }
}

}  // namespace pennyweight
