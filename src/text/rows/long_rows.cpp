#include "text/rows/long_rows.h"

#include <algorithm>

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
  const auto size = static_cast<size_t>(extent.size());
  return sink.give_line(file.read(extent.begin, size), where);
}

/// The lines of [begin, end), ended by \n, \r\n or \r.
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

/// Without blanks before and behind it.
JsonExtent trimmed(const ByteFile& file, JsonExtent line) {
  JsonScan scan(file, line.begin, line.end);
  scan.skip_blanks();
  line.begin = scan.at();
  return line;
}

void read_lines(const ByteFile& file, uint64_t begin, const RowSink& sink) {
  Lines lines(file, begin);
  JsonExtent line;
  for (size_t number = 1; lines.next(line); ++number) {
    if (line.first != '\0' &&
        !give(
            file,
            trimmed(file, line),
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

bool nothing_after(JsonScan& scan, const ByteFile& file) {
  scan.skip_blanks();
  return scan.at() >= file.size();
}

void read_list(const ByteFile& file, uint64_t begin, const RowSink& sink) {
  JsonScan scan(file, begin, file.size());
  size_t row = 0;
  const bool whole = scan_list(scan, [&](const JsonExtent& extent) {
    const auto where = file.name() + ", row " + std::to_string(++row);
    return give(file, extent, where, sink);
  });
  if (!whole) {
    throw Error(
        ErrorCode::corrupt,
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
      const auto size = static_cast<size_t>(extent.size());
      to_row(parse_json(file.read(extent.begin, size), ""), "");
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

/// As read_rows.cpp's find_list, by places instead of values.
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

void read_object(
    const ByteFile& file,
    const Members& members,
    const RowSink& sink) {
  const JsonExtent* list = find_list(file, members);
  if (list) {
    read_list(file, list->begin, sink);
    return;
  }
  sink.give_made([&] { return members_row(file, members, file.name()); });
}

}  // namespace

void read_long_lines(const ByteFile& file, const RowSink& sink) {
  const uint64_t begin = first_byte(file);
  JsonScan scan(file, begin, file.size());
  scan.skip_blanks();
  const uint64_t start = scan.at();
  if (scan.peek() == '[' && scan.skip_value() && nothing_after(scan, file)) {
    read_list(file, start, sink);
    return;
  }
  read_lines(file, begin, sink);
}

void read_long_document(const ByteFile& file, const RowSink& sink) {
  require_utf8(file);
  const uint64_t begin = first_byte(file);
  JsonScan scan(file, begin, file.size());
  scan.skip_blanks();
  const uint64_t start = scan.at();
  if (scan.peek() == '[') {
    read_list(file, start, sink);
    return;
  }
  const auto members = scan_object(scan);
  if (members && nothing_after(scan, file)) {
    read_object(file, *members, sink);
    return;
  }
  // JSON lines may be called .json.
  if (members) {
    read_lines(file, begin, sink);
    return;
  }
  throw Error(
      ErrorCode::corrupt,
      "data",
      file.name() + " is not valid JSON near byte " +
          std::to_string(scan.at()));
}

}  // namespace pennyweight
