#include "core/files/dir_handle.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/error.h"

namespace pennyweight {

namespace {

DirHandle::Kind kind_of(mode_t mode) {
  if (S_ISREG(mode)) {
    return DirHandle::Kind::file;
  }
  if (S_ISDIR(mode)) {
    return DirHandle::Kind::folder;
  }
  return S_ISLNK(mode) ? DirHandle::Kind::link : DirHandle::Kind::other;
}

[[noreturn]] void
fail(const char* action, const fs::path& path, int error_number) {
  throw io_error("files", action, path.string(), error_number);
}

// open(2) says ELOOP or ENOTDIR of a link that it was told not to follow.
[[noreturn]] void fail_to_open(
    const DirHandle& folder,
    const std::string& name,
    DirHandle::Kind wanted,
    int error_number) {
  const auto kind = folder.kind(name);
  const auto path = folder.path() / name;
  if (kind && *kind != wanted) {
    throw corrupt_error(
        "files",
        path.string() + " is " + kind_name(*kind) + ", not " +
            kind_name(wanted));
  }
  fail("can't open", path, error_number);
}

FileStamp stamp_of(const struct stat& info) {
#ifdef __APPLE__
  const timespec& written = info.st_mtimespec;
#else
  const timespec& written = info.st_mtim;
#endif
  return {
      static_cast<uint64_t>(info.st_dev),
      static_cast<uint64_t>(info.st_ino),
      static_cast<int64_t>(info.st_size),
      int64_t{written.tv_sec} * 1'000'000'000 + written.tv_nsec};
}

}  // namespace

FileStamp FileStamp::of(int fd) {
  struct stat info {};
  return ::fstat(fd, &info) == 0 ? stamp_of(info) : FileStamp();
}

std::optional<FileStamp> FileStamp::of(const fs::path& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 ? std::optional(stamp_of(info))
                                          : std::nullopt;
}

std::string kind_name(DirHandle::Kind kind) {
  switch (kind) {
    case DirHandle::Kind::file:
      return "a regular file";
    case DirHandle::Kind::folder:
      return "a folder";
    case DirHandle::Kind::link:
      return "a link";
    case DirHandle::Kind::other:
      break;
  }
  return "a pipe, device or socket";
}

DirHandle DirHandle::open(const fs::path& path) {
  Descriptor fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) {
    fail("can't open", path, errno);
  }
  return {std::move(fd), path};
}

DirHandle DirHandle::duplicate() const {
  Descriptor fd(::fcntl(fd_.get(), F_DUPFD_CLOEXEC, 0));
  if (!fd) {
    fail("can't open", path_, errno);
  }
  return {std::move(fd), path_};
}

bool DirHandle::is_in_place() const {
  const auto named = FileStamp::of(path_);
  return named && named->same_file(FileStamp::of(fd_.get())) &&
      !fs::is_symlink(fs::symlink_status(path_));
}

std::optional<DirHandle::Kind> DirHandle::kind(const std::string& name) const {
  struct stat info {};
  if (::fstatat(fd_.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0) {
    return kind_of(info.st_mode);
  }
  if (errno != ENOENT) {
    fail("can't look at", path_ / name, errno);
  }
  return std::nullopt;
}

std::vector<std::string> DirHandle::names() const {
  // A duplicate would share its place in the list with other readers.
  const int fd = ::openat(fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* entries = fd < 0 ? nullptr : ::fdopendir(fd);
  if (!entries) {
    const int failed = errno;
    Descriptor closes(fd);
    fail("can't list", path_, failed);
  }
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(entries)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") {
      names.push_back(name);
    }
  }
  const int failed = errno;
  ::closedir(entries);
  if (failed) {
    fail("can't list", path_, failed);
  }
  std::ranges::sort(names);
  return names;
}

std::vector<DirHandle::Entry> DirHandle::list() const {
  std::vector<Entry> found;
  for (const auto& name : names()) {
    if (const auto what = kind(name)) {  // else it has gone meanwhile
      found.push_back({name, *what});
    }
  }
  return found;
}

DirHandle DirHandle::open_folder(const std::string& name) const {
  Descriptor fd(::openat(
      fd_.get(),
      name.c_str(),
      O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) {
    fail_to_open(*this, name, Kind::folder, errno);
  }
  return {std::move(fd), path_ / name};
}

DirHandle DirHandle::make_folder(const std::string& name) const {
  if (::mkdirat(fd_.get(), name.c_str(), 0777) != 0) {
    fail("can't create", path_ / name, errno);
  }
  return open_folder(name);
}

DirHandle DirHandle::open_or_make_folder(const std::string& name) const {
  if (::mkdirat(fd_.get(), name.c_str(), 0777) != 0 && errno != EEXIST) {
    fail("can't create", path_ / name, errno);
  }
  return open_folder(name);
}

Descriptor DirHandle::open_file(const std::string& name, int flags) const {
  // Not to wait where the name is a pipe's.
  Descriptor fd(::openat(
      fd_.get(),
      name.c_str(),
      flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
      0644));
  struct stat info {};
  if (!fd || ::fstat(fd.get(), &info) != 0) {
    fail_to_open(*this, name, Kind::file, errno);
  }
  if (!S_ISREG(info.st_mode)) {
    fail_to_open(*this, name, Kind::file, EINVAL);
  }
  return fd;
}

std::string DirHandle::read_file(const std::string& name, size_t limit) const {
  const auto fd = open_file(name, O_RDONLY);
  return read_whole(fd.get(), (path_ / name).string(), limit);
}

void DirHandle::rename(const std::string& from, const std::string& to) const {
  if (::renameat(fd_.get(), from.c_str(), fd_.get(), to.c_str()) != 0) {
    fail("can't rename", path_ / from, errno);
  }
}

void DirHandle::remove(const std::string& name) const {
  const auto what = kind(name);
  if (!what) {
    return;
  }
  if (*what == Kind::folder) {
    const auto folder = open_folder(name);
    for (const auto& entry : folder.names()) {
      folder.remove(entry);
    }
  }
  const int flags = *what == Kind::folder ? AT_REMOVEDIR : 0;
  if (::unlinkat(fd_.get(), name.c_str(), flags) != 0 && errno != ENOENT) {
    fail("can't remove", path_ / name, errno);
  }
}

void DirHandle::sync() const {
  ::fsync(fd_.get());  // best effort: some file systems refuse it
}

}  // namespace pennyweight
