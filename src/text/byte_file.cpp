#include "text/byte_file.h"

#include <algorithm>

#include "core/error.h"
#include "core/files/dir_handle.h"
#include "text/rows/rows.h"

namespace pennyweight {

namespace {

constexpr size_t kPiece = size_t{256} << 10;
constexpr std::string_view kMark = "\xEF\xBB\xBF";

}  // namespace

ByteFile::ByteFile(const std::filesystem::path& path)
    : name_(path.string()),
      fd_(open_to_read(path)),
      size_(static_cast<uint64_t>(FileStamp::of(fd_.get()).bytes)) {}

void ByteFile::read(uint64_t offset, size_t bytes, std::string& into) const {
  into.resize(bytes);
  into.resize(read_at(fd_.get(), offset, into.data(), bytes, name_));
}

std::string ByteFile::read(uint64_t offset, size_t bytes) const {
  std::string text;
  read(offset, bytes, text);
  return text;
}

size_t cut_character(std::string_view text) {
  // A character has at most four bytes; its first says how many.
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if (byte < 0x80) {
      return 0;
    }
    if (byte >= 0xC0) {
      const size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
      return length > back ? back : 0;
    }
  }
  return 0;
}

void Utf8Check::add(std::string_view piece) {
  if (broken_) {
    return;
  }
  open_ += piece;
  const size_t whole = open_.size() - cut_character(open_);
  const size_t bad =
      find_invalid_utf8(std::string_view(open_).substr(0, whole));
  if (bad != std::string_view::npos) {
    broken_ = passed_ + bad;
    return;
  }
  passed_ += whole;
  open_.erase(0, whole);
}

std::optional<uint64_t> Utf8Check::broken(bool ended) const {
  if (!broken_ && ended && !open_.empty()) {
    return passed_;
  }
  return broken_;
}

TextPieces::TextPieces(const ByteFile& file, uint64_t begin, uint64_t end)
    : file_(file), at_(begin), end_(end) {
  if (file.read(begin, std::min<uint64_t>(kMark.size(), end - begin)) ==
      kMark) {
    at_ += kMark.size();
  }
}

bool TextPieces::next(std::string& piece) {
  piece.clear();
  while (piece.empty() && (at_ < end_ || return_)) {
    const auto bytes = std::min<uint64_t>(kPiece, end_ - at_);
    std::string raw = open_ + file_.read(at_, static_cast<size_t>(bytes));
    const bool last = raw.size() == open_.size() || at_ + bytes >= end_;
    at_ += bytes;
    const size_t cut = last ? 0 : cut_character(raw);
    open_ = raw.substr(raw.size() - cut);
    raw.resize(raw.size() - cut);
    for (const char c : raw) {
      if (return_ && c != '\n') {
        piece += '\n';
      }
      return_ = c == '\r';
      if (!return_) {
        piece += c;
      }
    }
    if (last && return_) {
      piece += '\n';
      return_ = false;
    }
    if (last) {
      at_ = end_;
    }
  }
  return !piece.empty();
}

void require_utf8(const ByteFile& file) {
  Utf8Check check;
  std::string piece;
  for (uint64_t at = 0; at < file.size(); at += kPiece) {
    file.read(at, kPiece, piece);
    check.add(piece);
    if (check.broken(false)) {
      break;
    }
  }
  if (const auto at = check.broken(true)) {
    throw corrupt_error(
        "data",
        file.name() + " is not valid UTF-8 at byte " + std::to_string(*at) +
            "; convert it to UTF-8");
  }
}

std::string read_text(const std::filesystem::path& path) {
  const ByteFile file(path);
  require_utf8(file);
  TextPieces pieces(file, 0, file.size());
  std::string text;
  for (std::string piece; pieces.next(piece);) {
    text += piece;
  }
  return text;
}

}  // namespace pennyweight
