#include "core/files/atomic_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "core/error.h"
#include "core/files/leftovers.h"

namespace pennyweight {

namespace {

constexpr const char* kSuffix = ".part";

// Not worth an error of its own: where the folder can't be listed, the file
// can be written all the same.
void clean_up_after_the_dead(const DirHandle& folder, const std::string& name) {
  try {
    for (const auto& entry : folder.names()) {
      const auto pid = owner_of(entry, name, kSuffix);
      if (pid && is_gone(*pid) && folder.kind(entry) == DirHandle::Kind::file) {
        folder.remove(entry);
      }
    }
  } catch (const Error&) {
  }
}

DirHandle folder_of(const fs::path& target) {
  try {
    return DirHandle::open(target.parent_path());
  } catch (const Error& error) {
    throw about("write", "can't create " + target.string(), error);
  }
}

}  // namespace

fs::path whole_path(const fs::path& path) {
  auto absolute = fs::absolute(path).lexically_normal();
  return absolute.has_filename() ? absolute : absolute.parent_path();
}

AtomicFile::AtomicFile(const fs::path& path)
    : folder_(folder_of(whole_path(path))),
      name_(whole_path(path).filename().string()) {
  clean_up_after_the_dead(folder_, name_);
  create();
}

AtomicFile::AtomicFile(const DirHandle& folder, std::string name)
    : folder_(folder.duplicate()), name_(std::move(name)) {
  create();
}

void AtomicFile::create() {
  require_replaceable();
  temporary_ = temporary_name(name_, kSuffix);
  named_ = Temporary(folder_.path() / temporary_);
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  const auto open = [&] {
    fd_ = Descriptor(::openat(folder_.fd(), temporary_.c_str(), kFlags, 0644));
  };
  open();
  if (!fd_ && errno == EEXIST) {
    // A dead process had the number that is now ours.
    ::unlinkat(folder_.fd(), temporary_.c_str(), 0);
    open();
  }
  if (!fd_) {
    throw io_error(
        "write", "can't create", (folder_.path() / temporary_).string(), errno);
  }
}

void AtomicFile::require_replaceable() const {
  const auto kind = folder_.kind(name_);
  if (kind && *kind != DirHandle::Kind::file) {
    throw argument_error(
        "write",
        target() + " is " + kind_name(*kind) +
            " and is not replaced by a file; choose another path");
  }
}

AtomicFile::~AtomicFile() {
  if (fd_) {
    ::unlinkat(folder_.fd(), temporary_.c_str(), 0);
  }
}

void AtomicFile::write(const void* data, size_t bytes) {
  pennyweight::write_at(fd_.get(), size_, data, bytes, target());
  size_ += bytes;
}

void AtomicFile::write_at(uint64_t offset, const void* data, size_t bytes) {
  if (!fd_ || offset + bytes > size_) {
    throw argument_error("write", "write past the end of " + target());
  }
  pennyweight::write_at(fd_.get(), offset, data, bytes, target());
}

void AtomicFile::extend(uint64_t size) {
  if (size < size_ || ::ftruncate(fd_.get(), static_cast<off_t>(size)) != 0) {
    throw io_error(
        "write", "can't write", target(), size < size_ ? EINVAL : errno);
  }
  size_ = size;
}

void AtomicFile::commit() {
  require_replaceable();  // it may have appeared meanwhile
  int failed = ::fsync(fd_.get()) != 0 && errno != EINVAL ? errno : 0;
  if (::close(fd_.release()) != 0 && !failed) {
    failed = errno;
  }
  if (!failed &&
      ::renameat(
          folder_.fd(), temporary_.c_str(), folder_.fd(), name_.c_str()) != 0) {
    failed = errno;
  }
  if (failed) {
    ::unlinkat(folder_.fd(), temporary_.c_str(), 0);
    throw io_error("write", "can't write", target(), failed);
  }
  folder_.sync();
}

void write_file(const fs::path& target, std::string_view text) {
  AtomicFile file(target);
  file.write(text);
  file.commit();
}

void write_file(
    const DirHandle& folder,
    const std::string& name,
    std::string_view text) {
  AtomicFile file(folder, name);
  file.write(text);
  file.commit();
}

void copy_whole_file(const fs::path& from, const fs::path& to) {
  const auto fd = open_to_read(from);
  std::vector<char> buffer(size_t{1} << 20);
  AtomicFile file(to);
  while (
      const size_t got = read_at(
          fd.get(), file.size(), buffer.data(), buffer.size(), from.string())) {
    file.write(buffer.data(), got);
  }
  file.commit();
}

std::string read_file(const fs::path& path, size_t limit) {
  return read_whole(open_to_read(path).get(), path.string(), limit);
}

}  // namespace pennyweight
