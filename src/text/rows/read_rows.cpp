#include "text/rows/rows.h"

#include <algorithm>

#include "core/json.h"
#include "text/byte_file.h"
#include "text/data_files.h"
#include "text/rows/json_rows.h"
#include "text/rows/row_sink.h"
#include "text/rust_text.h"
#include "text/wall.h"

namespace pennyweight {

namespace {

constexpr size_t kParquetChunk = size_t{1} << 20;
/// Text compresses ten times, repetitive rows a hundred times: what expands
/// further than this is no text, and could go on for hours.
constexpr uint64_t kMostExpanded = 1000;
constexpr uint64_t kFreeBytes = uint64_t{16} << 20;  // whatever the file's size

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
    const auto out = ask_rust("data", name, [&](auto* lines, auto* error) {
      const Wall::Section section(Wall::Part::read, name, 8 * kParquetChunk);
      return pw_parquet_next(rows.get(), kParquetChunk, lines, error);
    });
    expanded += out.size();
    if (expanded > most) {
      throw corrupt_error(
          "data",
          name + " expands to more than " + std::to_string(kMostExpanded) +
              " times its size; it is damaged or made to do harm");
    }
    if (out.size() == 0) {
      return;
    }
    for (std::string_view text = out.view(); !text.empty();) {
      const auto line = text.substr(0, text.find('\n'));
      text.remove_prefix(std::min(line.size() + 1, text.size()));
      if (!sink.give_line(line, name + ", row " + std::to_string(++row))) {
        return;
      }
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
  const ByteFile file(path);
  if (path.extension().string().size() == 5) {  // .json
    read_json_document(file, sink);
  } else {
    read_json_lines(file, sink);
  }
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
