#include "core/files/temporaries.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

#include <atomic>
#include <climits>
#include <cstring>
#include <utility>

namespace pennyweight {

namespace {

enum State : int { kFree, kTaken, kNamed, kRemoved };

constexpr int kDeepest = 16;  // folders in a folder, in what we write

void remove_entry(int folder, const char* name, int depth);

bool is_itself_or_parent(const char* name) {
  return std::strcmp(name, ".") == 0 || std::strcmp(name, "..") == 0;
}

// Takes over the descriptor. A signal may have come within malloc(), which
// opendir() calls and would wait for: Linux is asked for entries without it.
#ifdef __linux__
void empty_folder(int folder, int depth) {
  alignas(dirent64) char entries[2048];
  for (;;) {
    const auto size =
        ::syscall(SYS_getdents64, folder, entries, sizeof(entries));
    if (size <= 0) {
      break;
    }
    for (long at = 0; at < size;) {
      const auto* entry = reinterpret_cast<const dirent64*>(entries + at);
      at += entry->d_reclen;
      if (!is_itself_or_parent(entry->d_name)) {
        remove_entry(folder, entry->d_name, depth + 1);
      }
    }
  }
  ::close(folder);
}
#else
void empty_folder(int folder, int depth) {
  DIR* entries = ::fdopendir(folder);
  if (!entries) {
    ::close(folder);
    return;
  }
  while (const dirent* entry = ::readdir(entries)) {
    if (!is_itself_or_parent(entry->d_name)) {
      remove_entry(::dirfd(entries), entry->d_name, depth + 1);
    }
  }
  ::closedir(entries);
}
#endif

void remove_entry(int folder, const char* name, int depth) {
  struct stat info {};
  if (::fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
    return;
  }
  if (!S_ISDIR(info.st_mode)) {
    ::unlinkat(folder, name, 0);
    return;
  }
  // Emptied anew where another thread has put something in meanwhile.
  for (int i = 0; i < 3; ++i) {
    if (::unlinkat(folder, name, AT_REMOVEDIR) == 0 || depth >= kDeepest) {
      return;
    }
    const int inner =
        ::openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (inner >= 0) {
      empty_folder(inner, depth);
    }
  }
  ::unlinkat(folder, name, AT_REMOVEDIR);
}

}  // namespace

// Names are kept for the next owner and never freed: who removes may read
// them at any time.
struct Temporary::Name {
  std::atomic<int> state{kTaken};
  pid_t owner = 0;
  Kind kind = Kind::entry;
  char path[PATH_MAX] = {};
  Name* next = nullptr;

  static std::atomic<Name*> all;
  static Name* take();
};

std::atomic<Temporary::Name*> Temporary::Name::all{nullptr};

Temporary::Name* Temporary::Name::take() {
  for (Name* name = all.load(); name; name = name->next) {
    int expected = kFree;
    if (name->state.compare_exchange_strong(expected, kTaken)) {
      return name;
    }
  }
  auto* name = new Name;
  name->next = all.load();
  while (!all.compare_exchange_weak(name->next, name)) {
  }
  return name;
}

Temporary::Temporary(const std::filesystem::path& path, Kind kind) {
  const auto& text = path.native();
  if (text.size() >= PATH_MAX) {
    return;  // The system won't make anything of such a name.
  }
  name_ = Name::take();
  name_->owner = ::getpid();
  name_->kind = kind;
  std::memcpy(name_->path, text.c_str(), text.size() + 1);
  name_->state = kNamed;
}

Temporary::Temporary(Temporary&& other) noexcept
    : name_(std::exchange(other.name_, nullptr)) {}

Temporary& Temporary::operator=(Temporary&& other) noexcept {
  std::swap(name_, other.name_);
  return *this;
}

Temporary::~Temporary() {
  release();
}

void Temporary::release() {
  if (name_) {
    int expected = kNamed;
    name_->state.compare_exchange_strong(expected, kFree);
    name_ = nullptr;
  }
}

void remove_temporaries() {
  const pid_t self = ::getpid();
  using Name = Temporary::Name;
  for (Name* name = Name::all.load(); name; name = name->next) {
    int expected = kNamed;
    if (name->owner == self && name->kind == Temporary::Kind::entry &&
        name->state.compare_exchange_strong(expected, kRemoved)) {
      remove_entry(AT_FDCWD, name->path, 0);
    }
  }
  // Parents in any order: again, while one has gone.
  for (bool gone = true; gone;) {
    gone = false;
    for (Name* name = Name::all.load(); name; name = name->next) {
      gone |= name->state.load() == kNamed && name->owner == self &&
          name->kind == Temporary::Kind::parent && ::rmdir(name->path) == 0;
    }
  }
}

}  // namespace pennyweight
