#include "core/atomic_file.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <optional>
#include <vector>

#include "core/error.h"

namespace pennyweight {

namespace {

constexpr std::string_view kWhere = "write";
constexpr const char* kWorkSuffix = ".work";
constexpr const char* kOldSuffix = ".old";

fs::path sibling(const fs::path& target, const std::string& suffix) {
  return target.parent_path() / ("." + target.filename().string() + suffix);
}

// A trailing slash would make filename() empty.
fs::path normal(const fs::path& path) {
  auto absolute = fs::absolute(path).lexically_normal();
  return absolute.has_filename() ? absolute : absolute.parent_path();
}

// The process that named a sibling of target with `kind`, if `name` is such.
std::optional<pid_t> owner_of(
    const std::string& name,
    const fs::path& target,
    const std::string& kind) {
  std::string prefix = "." + target.filename().string() + kind;
  if (!name.starts_with(prefix)) {
    return std::nullopt;
  }
  pid_t pid = 0;
  const char* end = name.data() + name.size();
  auto [stop, error] = std::from_chars(name.data() + prefix.size(), end, pid);
  bool whole = error == std::errc() && stop == end && pid > 0;
  return whole ? std::optional(pid) : std::nullopt;
}

bool is_gone(pid_t pid) {
  return ::kill(pid, 0) != 0 && errno == ESRCH;
}

// What processes that were killed left beside the target. One killed amid the
// two renames of a replacement left the old folder under another name: it
// goes back.
void clean_up_after_the_dead(const fs::path& target) {
  std::error_code ignored;
  std::vector<fs::path> leftovers;
  for (const auto& entry :
       fs::directory_iterator(target.parent_path(), ignored)) {
    auto name = entry.path().filename().string();
    for (const char* kind : {kWorkSuffix, kOldSuffix}) {
      auto pid = owner_of(name, target, kind);
      if (!pid || !is_gone(*pid)) {
        continue;
      }
      bool lost = kind == kOldSuffix &&
          !fs::exists(fs::symlink_status(target, ignored));
      if (lost) {
        fs::rename(entry.path(), target, ignored);
      } else {
        leftovers.push_back(entry.path());
      }
    }
  }
  for (const auto& leftover : leftovers) {
    fs::remove_all(leftover, ignored);
  }
}

// Swaps two folders in one step, so that the target is never missing; false
// where the system or file system can't.
bool exchange(const fs::path& a, const fs::path& b) {
#if defined(__linux__) && defined(RENAME_EXCHANGE)
  return ::renameat2(
             AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0;
#elif defined(__APPLE__) && defined(RENAME_SWAP)
  return ::renamex_np(a.c_str(), b.c_str(), RENAME_SWAP) == 0;
#else
  (void)a;
  (void)b;
  return false;
#endif
}

void sync_folder(const fs::path& folder) {
  int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY);
  if (fd >= 0) {
    ::fsync(fd);  // best effort: some file systems refuse it
    ::close(fd);
  }
}

}  // namespace

AtomicFile::AtomicFile(fs::path target) : target_(normal(target)) {
  temporary_ = sibling(target_, ".part" + std::to_string(::getpid()));
  named_ = Temporary(temporary_);
  fd_ = ::open(
      temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) {
    throw io_error(kWhere, "can't create", temporary_.string(), errno);
  }
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) {
    ::close(fd_);
    ::unlink(temporary_.c_str());
  }
}

void AtomicFile::write(const void* data, size_t bytes) {
  auto* from = static_cast<const char*>(data);
  while (bytes > 0) {
    // Linux writes at most 2 GiB at a time.
    size_t chunk = std::min(bytes, size_t{1} << 30);
    ssize_t written = ::pwrite(fd_, from, chunk, static_cast<off_t>(size_));
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written <= 0) {
      throw io_error(
          kWhere, "can't write", target_.string(), written ? errno : ENOSPC);
    }
    from += written;
    bytes -= static_cast<size_t>(written);
    size_ += static_cast<uint64_t>(written);
  }
}

void AtomicFile::write_at(uint64_t offset, const void* data, size_t bytes) {
  if (fd_ < 0 || offset + bytes > size_) {
    throw Error(
        ErrorCode::invalid_argument,
        kWhere,
        "write past the end of " + target_.string());
  }
  auto* from = static_cast<const char*>(data);
  while (bytes > 0) {
    ssize_t written = ::pwrite(fd_, from, bytes, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written <= 0) {
      throw io_error(
          kWhere, "can't write", target_.string(), written ? errno : ENOSPC);
    }
    from += written;
    bytes -= static_cast<size_t>(written);
    offset += static_cast<uint64_t>(written);
  }
}

void AtomicFile::commit() {
  int failed = ::fsync(fd_) != 0 && errno != EINVAL ? errno : 0;
  if (::close(fd_) != 0 && !failed) {
    failed = errno;
  }
  fd_ = -1;
  if (!failed && ::rename(temporary_.c_str(), target_.c_str()) != 0) {
    failed = errno;
  }
  if (failed) {
    ::unlink(temporary_.c_str());
    throw io_error(kWhere, "can't write", target_.string(), failed);
  }
  sync_folder(target_.parent_path());
}

void write_file(const fs::path& target, std::string_view text) {
  AtomicFile file(target);
  file.write(text);
  file.commit();
}

void copy_whole_file(const fs::path& from, const fs::path& to) {
  int fd = ::open(from.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    throw io_error("read", "can't open", from.string(), errno);
  }
  std::vector<char> buffer(size_t{1} << 20);
  try {
    AtomicFile file(to);
    for (;;) {
      ssize_t got = ::read(fd, buffer.data(), buffer.size());
      if (got < 0 && errno == EINTR) {
        continue;
      }
      if (got < 0) {
        throw io_error("read", "can't read", from.string(), errno);
      }
      if (got == 0) {
        break;
      }
      file.write(buffer.data(), static_cast<size_t>(got));
    }
    file.commit();
  } catch (...) {
    ::close(fd);
    throw;
  }
  ::close(fd);
}

std::string read_file(const fs::path& path, size_t limit) {
  // Not to wait where the name is a pipe's.
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    throw io_error("read", "can't open", path.string(), errno);
  }
  struct Closer {
    int fd;
    ~Closer() {
      ::close(fd);
    }
  } closer{fd};
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    throw Error(
        ErrorCode::corrupt, "read", path.string() + " is not a regular file");
  }
  if (static_cast<uint64_t>(info.st_size) > limit) {
    throw Error(
        ErrorCode::corrupt,
        "read",
        path.string() + " is larger than the " + std::to_string(limit) +
            " bytes expected of such a file");
  }
  std::string text(static_cast<size_t>(info.st_size), '\0');
  size_t done = 0;
  while (done < text.size()) {
    ssize_t got = ::pread(
        fd, text.data() + done, text.size() - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      throw io_error("read", "can't read", path.string(), errno);
    }
    if (got == 0) {
      break;  // shrunk meanwhile
    }
    done += static_cast<size_t>(got);
  }
  text.resize(done);
  return text;
}

AtomicFolder::AtomicFolder(fs::path target, bool force)
    : target_(normal(target)), force_(force) {
  make_parents();
  clean_up_after_the_dead(target_);
  check_target();
  work_ = sibling(target_, kWorkSuffix + std::to_string(::getpid()));
  named_.emplace_back(work_);
  std::error_code failed;
  fs::remove_all(work_, failed);
  if (!failed) {
    fs::create_directory(work_, failed);
  }
  if (failed) {
    remove_parents();
    throw io_error("output", "can't create", work_.string(), failed.value());
  }
}

AtomicFolder::~AtomicFolder() {
  if (!committed_) {
    std::error_code ignored;
    fs::remove(work_, ignored);  // where no descriptor is left to list it by
    fs::remove_all(work_, ignored);
    remove_parents();
  }
}

void AtomicFolder::make_parents() {
  std::error_code failed;
  auto parent = target_.parent_path();
  for (auto path = parent; !fs::exists(path, failed) && path.has_filename();
       path = path.parent_path()) {
    made_.push_back(path);
    named_.emplace_back(path, Temporary::Kind::parent);
  }
  failed.clear();
  fs::create_directories(parent, failed);
  if (failed) {
    remove_parents();
    throw io_error("output", "can't create", parent.string(), failed.value());
  }
}

void AtomicFolder::remove_parents() const {
  std::error_code ignored;
  for (const auto& path : made_) {
    fs::remove(path, ignored);  // refused where it is not empty
  }
}

void AtomicFolder::check_target() const {
  std::error_code failed;
  if (!fs::exists(fs::symlink_status(target_, failed))) {
    return;
  }
  if (!force_) {
    throw Error(
        ErrorCode::invalid_argument,
        "output",
        target_.string() +
            " already exists; choose another path or pass --force");
  }
  bool replaceable = fs::is_directory(target_, failed) &&
      (fs::is_empty(target_, failed) ||
       fs::exists(target_ / "config.json", failed) ||
       fs::exists(target_ / "sweep.json", failed));
  if (!replaceable) {
    throw Error(
        ErrorCode::invalid_argument,
        "output",
        target_.string() +
            " is not a model folder, so --force won't replace it");
  }
}

void AtomicFolder::commit() {
  check_target();  // it may have appeared meanwhile
  std::error_code failed;
  if (!fs::exists(fs::symlink_status(target_, failed))) {
    fs::rename(work_, target_, failed);
  } else if (exchange(work_, target_)) {
    committed_ = true;
    fs::remove_all(work_, failed);
    failed.clear();
  } else {
    replace(failed);
  }
  if (failed) {
    throw io_error("output", "can't rename", work_.string(), failed.value());
  }
  committed_ = true;
  sync_folder(target_.parent_path());
}

void AtomicFolder::replace(std::error_code& failed) {
  std::error_code ignored;
  fs::path old = sibling(target_, kOldSuffix + std::to_string(::getpid()));
  fs::remove_all(old, ignored);
  fs::rename(target_, old, failed);
  if (failed) {
    return;
  }
  fs::rename(work_, target_, failed);
  if (failed) {
    fs::rename(old, target_, ignored);
    return;
  }
  fs::remove_all(old, ignored);
}

}  // namespace pennyweight
