#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>

namespace pennyweight {

namespace fs = std::filesystem;

/// A file descriptor that is closed with its owner; -1: none.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    reset();
  }
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    reset();
    fd_ = other.release();
    return *this;
  }

  int get() const {
    return fd_;
  }
  explicit operator bool() const {
    return fd_ >= 0;
  }
  int release() {
    return std::exchange(fd_, -1);
  }
  void reset();

 private:
  int fd_ = -1;
};

/// Opens a regular file for reading; links are followed. not_found and io
/// Errors; corrupt for what is no regular file.
Descriptor open_to_read(const fs::path& path);

/// Reads `bytes` from `offset`, fewer at the file's end alone, and gives their
/// number. Errors of these call the file `name`.
size_t read_at(
    int fd,
    uint64_t offset,
    void* data,
    size_t bytes,
    const std::string& name);

/// Writes all of `bytes` at `offset`; io Error, on a full disk too.
void write_at(
    int fd,
    uint64_t offset,
    const void* data,
    size_t bytes,
    const std::string& name);

/// Reads a whole file of at most `limit` bytes: corrupt for what is no regular
/// file or larger.
std::string read_whole(int fd, const std::string& name, size_t limit);

/// A file without a name, made at the first write and gone with its owner: a
/// killed process leaves nothing. io Error where it can't be written or read.
class ScratchFile {
 public:
  /// In `folder`, or in the system's for temporary files.
  explicit ScratchFile(fs::path folder = {}) : folder_(std::move(folder)) {}

  void write(uint64_t offset, const void* data, size_t bytes);
  /// All of these bytes have been written.
  void read(uint64_t offset, void* data, size_t bytes) const;
  /// Gives its bytes back; it can be written to again.
  void clear() {
    fd_.reset();
  }

 private:
  std::string name() const;

  fs::path folder_;
  Descriptor fd_;
};

}  // namespace pennyweight
