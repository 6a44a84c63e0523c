#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "core/files/descriptor.h"

namespace pennyweight {

/// A regular file that is read by pieces. not_found and io Errors; corrupt for
/// what is no regular file.
class ByteFile {
 public:
  explicit ByteFile(const std::filesystem::path& path);

  /// As it was when the file was opened.
  uint64_t size() const {
    return size_;
  }
  const std::string& name() const {
    return name_;
  }
  /// Up to `bytes` from `offset`: fewer at the end only.
  std::string read(uint64_t offset, size_t bytes) const;
  void read(uint64_t offset, size_t bytes, std::string& into) const;

 private:
  std::string name_;
  Descriptor fd_;
  uint64_t size_ = 0;
};

/// Whether bytes that come in pieces are UTF-8.
class Utf8Check {
 public:
  void add(std::string_view piece);
  /// The first byte, of all that came, at which a character is broken.
  std::optional<uint64_t> broken(bool ended) const;

 private:
  std::string open_;     // of a character that a piece cut
  uint64_t passed_ = 0;  // bytes before open_
  std::optional<uint64_t> broken_;
};

/// The bytes [begin, end) of a file as text in pieces, as Python's text mode
/// reads it: a byte order mark at `begin` dropped, line ends made "\n". Pieces
/// end with a whole character.
class TextPieces {
 public:
  TextPieces(const ByteFile& file, uint64_t begin, uint64_t end);

  /// False at the end. The text of a piece is never empty.
  bool next(std::string& piece);

 private:
  const ByteFile& file_;
  uint64_t at_;
  uint64_t end_;
  std::string open_;  // the bytes of a character that the last piece cut
  bool return_ = false;
};

/// Reads the whole file to see that it is UTF-8: else corrupt, with the byte.
void require_utf8(const ByteFile& file);

/// A whole file as text: as TextPieces give it, once require_utf8 has passed.
std::string read_text(const std::filesystem::path& path);

/// The bytes at the end of `text` that begin a character and don't end it.
size_t cut_character(std::string_view text);

}  // namespace pennyweight
