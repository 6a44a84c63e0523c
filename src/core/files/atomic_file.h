#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "core/files/dir_handle.h"
#include "core/files/temporaries.h"

namespace pennyweight {

namespace fs = std::filesystem;

/// A file that appears under its name only when whole: written beside the
/// target, flushed and fsynced, then renamed by commit(). Destroyed without
/// commit, it leaves nothing. Every short write is an io Error that names the
/// file (a full disk included). Only a regular file is ever replaced: a link,
/// folder, pipe or device under the name is an invalid_argument Error.
class AtomicFile {
 public:
  /// What a killed process left of the same file beside the target goes.
  explicit AtomicFile(const fs::path& target);
  /// The entry `name` of an open folder.
  AtomicFile(const DirHandle& folder, std::string name);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes);
  void write(std::string_view text) {
    write(text.data(), text.size());
  }
  /// Overwrites `bytes` at `offset`, which must lie in what was written.
  void write_at(uint64_t offset, const void* data, size_t bytes);
  /// Makes it so long, with zeros behind what was written, for write_at().
  void extend(uint64_t size);
  uint64_t size() const {
    return size_;
  }
  void commit();

 private:
  void create();
  void require_replaceable() const;
  std::string target() const {
    return (folder_.path() / name_).string();
  }

  DirHandle folder_;
  std::string name_;
  std::string temporary_;
  Temporary named_;
  Descriptor fd_;
  uint64_t size_ = 0;
};

/// `path` absolute, without a slash at its end, which would leave it no
/// filename().
fs::path whole_path(const fs::path& path);

/// Writes `text` to `target` by way of an AtomicFile.
void write_file(const fs::path& target, std::string_view text);
void write_file(
    const DirHandle& folder,
    const std::string& name,
    std::string_view text);

/// Copies a regular file by way of an AtomicFile.
void copy_whole_file(const fs::path& from, const fs::path& to);

/// Reads a whole file of at most `limit` bytes.
std::string read_file(const fs::path& path, size_t limit);

/// An output folder that appears under its name only when whole: work goes
/// to path(), a fresh hidden sibling of the target, which commit() renames to
/// the target. An existing target is refused (invalid_argument) unless
/// `force`; with it the old folder is replaced at commit, not before, and only
/// if it is a folder, not a link to one, that looks like a model (has
/// config.json) or a sweep (has sweep.json), or is empty.
/// Destroyed without commit, nothing is left; what a process that was killed
/// left beside the target goes when the next one begins.
class AtomicFolder {
 public:
  AtomicFolder(fs::path target, bool force);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  const fs::path& path() const {
    return work_;
  }
  void commit();

 private:
  void check_target() const;
  void replace(std::error_code& failed);

  void make_parents();
  void remove_parents() const;

  fs::path target_;
  fs::path work_;
  std::vector<fs::path> made_;  // parents that did not exist, inner first
  std::vector<Temporary> unfinished_;  // they and the work folder
  bool force_;
  bool committed_ = false;
};

}  // namespace pennyweight
