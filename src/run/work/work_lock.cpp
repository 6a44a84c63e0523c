#include "run/work/work_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>

#include "core/error.h"

namespace pennyweight {

Descriptor lock_work(
    const DirHandle& folder,
    const std::filesystem::path& path,
    const std::filesystem::path& target) {
  const auto kind = folder.kind(kWorkLock);
  if (kind && *kind != DirHandle::Kind::file) {
    folder.remove(kWorkLock);
  }
  auto opened = folder.open_file(kWorkLock, O_RDWR | O_CREAT);
  const bool locked = ::flock(opened.get(), LOCK_EX | LOCK_NB) == 0;
  const int failed = errno;
  // The one who had it may have removed the file after it was opened here.
  struct stat named {};
  const auto own = FileStamp::of(opened.get());
  const bool same =
      ::fstatat(folder.fd(), kWorkLock, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
      own.number == static_cast<uint64_t>(named.st_ino);
  if (locked && same) {
    return opened;
  }
  if (!locked && failed != EWOULDBLOCK) {
    throw io_error("resume", "can't lock", (path / kWorkLock).string(), failed);
  }
  throw argument_error(
      "resume",
      "another process is writing " + target.string() +
          "; wait for it or choose another output");
}

}  // namespace pennyweight
