#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string_view>

#include "core/files/atomic_file.h"
#include "text/data_files.h"
#include "text/rows/rows.h"

namespace pennyweight {

namespace {

using namespace std::string_view_literals;

constexpr size_t kHead = size_t{64} << 10;

struct Format {
  std::string_view magic;
  const char* name;
  const char* reason;
};

// The first bytes by which file(1) tells these formats.
constexpr std::array kFormats = {
    Format{"\x1F\x8B"sv, "gzip", "compressed"},
    Format{"\x28\xB5\x2F\xFD"sv, "zstd", "compressed"},
    Format{"BZh"sv, "bzip2", "compressed"},
    Format{"\xFD\x37zXZ\0"sv, "xz", "compressed"},
    Format{"\x04\x22\x4D\x18"sv, "lz4", "compressed"},
    Format{"PK\x03\x04"sv, "zip", "compressed"},
    Format{"7z\xBC\xAF\x27\x1C"sv, "7z", "compressed"},
    Format{"\x89PNG"sv, "a PNG image", "not text"},
    Format{"\xFF\xD8\xFF"sv, "a JPEG image", "not text"},
    Format{"GIF8"sv, "a GIF image", "not text"},
    Format{"RIFF"sv, "a RIFF file (WebP, WAV)", "not text"},
    Format{"%PDF-"sv, "a PDF", "not text"},
    Format{"\x7F\x45LF"sv, "a program", "not text"},
    Format{"SQLite format 3\0"sv, "an SQLite database", "not text"},
    Format{"ARROW1"sv, "an Arrow file", "not text"},
};

FileProblem not_utf8(const std::string& how) {
  return {
      ErrorCode::corrupt,
      "not UTF-8",
      "is not valid UTF-8 at byte 0 (" + how + "); convert it to UTF-8"};
}

std::optional<FileProblem> find_encoding_problem(std::string_view head) {
  if (head.starts_with("\xFF\xFE"sv) || head.starts_with("\xFE\xFF"sv)) {
    return not_utf8("it is UTF-16 or UTF-32");
  }
  const auto nulls = std::count(head.begin(), head.end(), '\0');
  if (static_cast<size_t>(nulls) * 10 > head.size()) {
    if (head.size() > 1 && (head[0] == '\0') != (head[1] == '\0') &&
        static_cast<size_t>(nulls) * 3 > head.size()) {
      return not_utf8("it looks like UTF-16");
    }
    return FileProblem{
        ErrorCode::corrupt, "not text", "is no text: binary data"};
  }
  const size_t bad = find_invalid_utf8(head);
  const bool controls = std::any_of(head.begin(), head.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < 7 || (byte > 13 && byte < 27);
  });
  if (bad != std::string_view::npos && bad + 4 < head.size() && controls) {
    return FileProblem{
        ErrorCode::corrupt,
        "not text",
        "is no text: binary data (not valid UTF-8 at byte " +
            std::to_string(bad) + ")"};
  }
  return std::nullopt;
}

std::optional<FileProblem> find_format_problem(
    const fs::path& path,
    std::string_view head) {
  for (const Format& format : kFormats) {
    if (head.starts_with(format.magic)) {
      const bool packed = format.reason == "compressed"sv;
      return FileProblem{
          packed ? ErrorCode::not_supported : ErrorCode::corrupt,
          format.reason,
          packed ? "is compressed (" + std::string(format.name) +
                  "); unpack it first"
                 : "is " + std::string(format.name) + ", not text"};
    }
  }
  if (path.extension() == ".arrow") {
    return FileProblem{
        ErrorCode::not_supported,
        "not text",
        "is an Arrow file of datasets; write it anew with to_parquet()"};
  }
  if (head.starts_with("PAR1")) {
    return FileProblem{
        ErrorCode::not_supported,
        "Parquet by another name",
        "holds Parquet; name it .parquet"};
  }
  return find_encoding_problem(head);
}

}  // namespace

std::optional<FileProblem> find_file_problem(const fs::path& path) {
  std::error_code code;
  const auto kind = fs::status(path, code).type();
  if (kind != fs::file_type::regular) {
    return FileProblem{
        kind == fs::file_type::not_found ? ErrorCode::not_found : ErrorCode::io,
        "unreadable",
        kind == fs::file_type::not_found ? "is a link to a file that is missing"
                                         : "is no regular file"};
  }
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(
      std::fopen(path.c_str(), "rb"), &std::fclose);
  std::string head(kHead, '\0');
  if (file) {
    head.resize(std::fread(head.data(), 1, head.size(), file.get()));
  }
  if (!file || std::ferror(file.get()) != 0) {
    return FileProblem{
        ErrorCode::io,
        "unreadable",
        "can't be read: " + std::string(std::strerror(errno))};
  }
  if (head.empty()) {
    return FileProblem{
        ErrorCode::invalid_argument, "empty", "holds no text: it is empty"};
  }
  if (head.starts_with("version https://git-lfs.github.com/spec/")) {
    return FileProblem{
        ErrorCode::corrupt,
        "Git LFS pointers",
        "is a pointer of Git LFS and not the data itself; run git lfs pull in "
        "its folder"};
  }
  const bool parquet = is_parquet_name(path) && head.starts_with("PAR1");
  return parquet ? std::nullopt : find_format_problem(path, head);
}

}  // namespace pennyweight
