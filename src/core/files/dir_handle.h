#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/files/descriptor.h"

namespace pennyweight {

namespace fs = std::filesystem;

/// Which file a descriptor or path leads to, and when it was last written to.
struct FileStamp {
  uint64_t device = 0;
  uint64_t number = 0;
  int64_t bytes = 0;
  int64_t written = 0;  // nanoseconds

  static FileStamp of(int fd);
  /// Absent where nothing is there.
  static std::optional<FileStamp> of(const fs::path& path);
  bool same_file(const FileStamp& other) const {
    return device == other.device && number == other.number;
  }
  bool operator==(const FileStamp&) const = default;
};

/// An open folder. What is done by it is done in that very folder, whatever
/// its path has come to mean since, and never through a link: the names it
/// takes are those of entries ("block-00001"), without a slash. Errors name
/// the path: not_found for what is not there, corrupt for what is of another
/// kind than asked for (a link where a file should stand), io for the rest.
class DirHandle {
 public:
  enum class Kind { file, folder, link, other };
  struct Entry {
    std::string name;
    Kind kind;
  };

  /// Links on the way are followed, and one at the end, too: a path is the
  /// user's.
  static DirHandle open(const fs::path& path);

  /// Another handle on the same folder.
  DirHandle duplicate() const;

  /// As it was opened, for messages.
  const fs::path& path() const {
    return path_;
  }
  int fd() const {
    return fd_.get();
  }
  /// Whether its path leads to it still.
  bool is_in_place() const;

  /// What stands under a name, links not followed; absent: nothing.
  std::optional<Kind> kind(const std::string& name) const;
  /// All entries but . and .., sorted.
  std::vector<std::string> names() const;
  std::vector<Entry> list() const;

  DirHandle open_folder(const std::string& name) const;
  /// A new one; io Error where something stands there.
  DirHandle make_folder(const std::string& name) const;
  DirHandle open_or_make_folder(const std::string& name) const;
  /// A regular file to be read or, with `flags` of open(2), written.
  Descriptor open_file(const std::string& name, int flags) const;
  /// A whole regular file of at most `limit` bytes.
  std::string read_file(const std::string& name, size_t limit) const;

  /// Replaces what stands under `to`, if that is of the same kind.
  void rename(const std::string& from, const std::string& to) const;
  /// Removes what stands under a name, a folder with all that is in it; of a
  /// link only the link. Nothing to remove is no error.
  void remove(const std::string& name) const;
  /// Flushes its entries to the disk, where the system can.
  void sync() const;

 private:
  DirHandle(Descriptor fd, fs::path path)
      : fd_(std::move(fd)), path_(std::move(path)) {}

  Descriptor fd_;
  fs::path path_;
};

/// In words, with its article: "a link", "a folder".
std::string kind_name(DirHandle::Kind kind);

}  // namespace pennyweight
