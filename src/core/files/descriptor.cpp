#include "core/files/descriptor.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/error.h"

namespace pennyweight {

namespace {

// Linux moves at most 2 GiB at a time.
constexpr size_t kMost = size_t{1} << 30;

// Calls `move(done)` for what is left from there on, until all is moved or it
// moves nothing; the bytes that were moved, or -1 with errno.
template <class Move>
ssize_t move_all(size_t bytes, Move move) {
  size_t done = 0;
  while (done < bytes) {
    const ssize_t moved = move(done, std::min(bytes - done, kMost));
    if (moved < 0 && errno == EINTR) {
      continue;
    }
    if (moved < 0) {
      return -1;
    }
    if (moved == 0) {
      break;
    }
    done += static_cast<size_t>(moved);
  }
  return static_cast<ssize_t>(done);
}

uint64_t regular_size(int fd, const std::string& name) {
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    throw corrupt_error("read", name + " is not a regular file");
  }
  return static_cast<uint64_t>(info.st_size);
}

}  // namespace

void Descriptor::reset() {
  if (fd_ >= 0) {
    ::close(fd_);
    fd_ = -1;
  }
}

Descriptor open_to_read(const fs::path& path) {
  // Not to wait where the name is a pipe's.
  Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) {
    throw io_error("read", "can't open", path.string(), errno);
  }
  regular_size(fd.get(), path.string());
  return fd;
}

size_t read_at(
    int fd,
    uint64_t offset,
    void* data,
    size_t bytes,
    const std::string& name) {
  const auto done = move_all(bytes, [&](size_t at, size_t count) {
    return ::pread(
        fd,
        static_cast<char*>(data) + at,
        count,
        static_cast<off_t>(offset + at));
  });
  if (done < 0) {
    throw io_error("read", "can't read", name, errno);
  }
  return static_cast<size_t>(done);
}

void write_at(
    int fd,
    uint64_t offset,
    const void* data,
    size_t bytes,
    const std::string& name) {
  const auto done = move_all(bytes, [&](size_t at, size_t count) {
    return ::pwrite(
        fd,
        static_cast<const char*>(data) + at,
        count,
        static_cast<off_t>(offset + at));
  });
  if (done < 0 || static_cast<size_t>(done) < bytes) {
    throw io_error("write", "can't write", name, done < 0 ? errno : ENOSPC);
  }
}

std::string read_whole(int fd, const std::string& name, size_t limit) {
  const uint64_t size = regular_size(fd, name);
  if (size > limit) {
    throw corrupt_error(
        "read",
        name + " is larger than the " + std::to_string(limit) +
            " bytes expected of such a file");
  }
  std::string text(static_cast<size_t>(size), '\0');
  text.resize(read_at(fd, 0, text.data(), text.size(), name));
  return text;
}

std::string ScratchFile::name() const {
  return "a scratch file in " + folder_.string();
}

void ScratchFile::write(uint64_t offset, const void* data, size_t bytes) {
  if (!fd_) {
    if (folder_.empty()) {
      std::error_code failed;
      folder_ = fs::temp_directory_path(failed);
      folder_ = failed ? "/tmp" : folder_;
    }
    std::string path = (folder_ / ".pennyweight-XXXXXX").string();
    fd_ = Descriptor(::mkstemp(path.data()));
    if (!fd_) {
      throw io_error("scratch", "can't create", name(), errno);
    }
    ::unlink(path.c_str());
    ::fcntl(fd_.get(), F_SETFD, FD_CLOEXEC);
  }
  write_at(fd_.get(), offset, data, bytes, name());
}

void ScratchFile::read(uint64_t offset, void* data, size_t bytes) const {
  if (read_at(fd_.get(), offset, data, bytes, name()) < bytes) {
    throw io_error("scratch", "can't read", name(), EIO);
  }
}

}  // namespace pennyweight
