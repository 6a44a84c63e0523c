#pragma once

#include <mlx/array.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/tensor_info.h"
#include "core/files/dir_handle.h"

namespace pennyweight {

/// A tensor as a safetensors header describes it; begin and end are offsets
/// in the file.
struct SafetensorsEntry {
  std::string name;
  mx::Dtype dtype;
  mx::Shape shape;
  uint64_t begin;
  uint64_t end;
  ByteType byte_type = ByteType::plain;
};

/// Longest header accepted, as in the reference implementation.
inline constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;

/// Checks and reads a header, which is the JSON behind the 8-byte length of a
/// file (https://github.com/huggingface/safetensors#format). `file_size` is in
/// bytes; `file` is named in errors. Entries come in the order of their
/// offsets; F8_E4M3 and F8_E8M0 are uint8 with a byte type. It takes time and
/// memory in proportion to the header, whatever that holds.
/// `metadata`, where it is given, is filled with the header's "__metadata__".
///
/// Errors: corrupt for a file that is shorter than its tensors (the message has
/// both sizes) or longer, offsets that do not match the shape, leave holes or
/// overlap, shapes that overflow, unknown fields, and names that come twice;
/// not_supported for other dtypes that MLX has not (F64, F8_E5M2).
std::vector<SafetensorsEntry> parse_safetensors_header(
    std::string_view header,
    uint64_t file_size,
    const std::string& file,
    std::map<std::string, std::string>* metadata = nullptr);

/// The dtype's name in a safetensors header ("BF16"); not_supported for one
/// that the format has not.
std::string safetensors_dtype_name(
    mx::Dtype dtype,
    ByteType byte_type = ByteType::plain);

/// A mapped safetensors file. Tensors are views of the mapping, which lives
/// as long as the last of them.
class SafetensorsFile {
 public:
  /// Maps a file and reads its header. corrupt Error for what is no safetensors
  /// file; the message tells an empty file, one that is cut short, a git-LFS
  /// pointer and an HTML page.
  static std::shared_ptr<SafetensorsFile> open(
      const std::filesystem::path& path);
  /// The entry `name` of an open folder, if it is a regular file and no link.
  static std::shared_ptr<SafetensorsFile> open(
      const DirHandle& folder,
      const std::string& name);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::filesystem::path& path() const {
    return path_;
  }
  const std::vector<SafetensorsEntry>& entries() const {
    return entries_;
  }

  /// The header's "__metadata__", read again at each call: most who open a file
  /// do not ask.
  std::map<std::string, std::string> metadata() const;
  /// The stamp that the file had when it was opened.
  const FileStamp& stamp() const {
    return stamp_;
  }
  /// Throws an io Error if the file has been written to since it was opened. A
  /// new file in its place does not matter, since this one stays mapped.
  void require_unchanged() const;
  /// Calls `use` with the bytes begin .. end - 1 of the file, and gives their
  /// pages back. May be called from any thread.
  void read(
      uint64_t begin,
      uint64_t end,
      const std::function<void(const char* data, size_t bytes)>& use) const;

  /// A tensor as a view of the mapping, or a copy where the data is not aligned
  /// to its item size. The pages go back to the system when the array goes, so
  /// that reading a model does not grow the process.
  static mx::array load(
      const std::shared_ptr<SafetensorsFile>& file,
      const SafetensorsEntry& entry);

 private:
  explicit SafetensorsFile(std::filesystem::path path)
      : path_(std::move(path)) {}
  /// `opened`: a descriptor, or -1 with errno.
  static std::shared_ptr<SafetensorsFile> map(
      const Descriptor& opened,
      const std::filesystem::path& path);
  void give_back(const char* data, size_t bytes) const;

  std::filesystem::path path_;
  std::vector<SafetensorsEntry> entries_;
  char* data_ = nullptr;
  size_t size_ = 0;
  FileStamp stamp_;
};

/// All tensors of a file by name, each as SafetensorsFile::load() gives it.
std::map<std::string, mx::array> load_safetensors(
    const std::filesystem::path& path);
std::map<std::string, mx::array> load_safetensors(
    const DirHandle& folder,
    const std::string& name);

}  // namespace pennyweight
