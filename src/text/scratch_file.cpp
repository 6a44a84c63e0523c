#include "text/scratch_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>
#include <utility>

#include "core/error.h"

namespace pennyweight {

namespace {

std::string folder() {
  std::error_code failed;
  const auto path = std::filesystem::temp_directory_path(failed);
  return failed ? "/tmp" : path.string();
}

[[noreturn]] void refuse(int error_number) {
  throw io_error(
      "scratch", "can't use a scratch file in", folder(), error_number);
}

}  // namespace

ScratchFile::~ScratchFile() {
  if (fd_ >= 0) {
    ::close(fd_);
  }
}

ScratchFile::ScratchFile(ScratchFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), size_(std::exchange(other.size_, 0)) {}

void ScratchFile::open() {
  std::string name = folder() + "/pennyweight-XXXXXX";
  fd_ = ::mkstemp(name.data());
  if (fd_ < 0) {
    refuse(errno);
  }
  ::unlink(name.c_str());
  ::fcntl(fd_, F_SETFD, FD_CLOEXEC);
}

void ScratchFile::append(const void* data, size_t bytes) {
  if (fd_ < 0) {
    open();
  }
  const auto* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t done = ::pwrite(fd_, from, bytes, static_cast<off_t>(size_));
    if (done < 0 && errno == EINTR) {
      continue;
    }
    if (done <= 0) {
      refuse(done ? errno : ENOSPC);
    }
    from += done;
    bytes -= static_cast<size_t>(done);
    size_ += static_cast<uint64_t>(done);
  }
}

void ScratchFile::read(uint64_t offset, void* data, size_t bytes) const {
  auto* to = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t done = ::pread(fd_, to, bytes, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) {
      continue;
    }
    if (done <= 0) {
      refuse(done ? errno : EIO);
    }
    to += done;
    bytes -= static_cast<size_t>(done);
    offset += static_cast<uint64_t>(done);
  }
}

}  // namespace pennyweight
