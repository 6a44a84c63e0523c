#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <vector>

#include "core/error.h"
#include "core/files/atomic_file.h"
#include "core/files/leftovers.h"

namespace pennyweight {

namespace {

constexpr const char* kWorkSuffix = ".work";
constexpr const char* kOldSuffix = ".old";

fs::path sibling(const fs::path& target, const std::string& kind) {
  return target.parent_path() /
      temporary_name(target.filename().string(), kind);
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
      auto pid = owner_of(name, target.filename().string(), kind);
      if (!pid || !is_gone(*pid) ||
          !fs::is_directory(entry.symlink_status(ignored))) {
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

AtomicFolder::AtomicFolder(fs::path target, bool force)
    : target_(whole_path(target)), force_(force) {
  make_parents();
  clean_up_after_the_dead(target_);
  check_target();
  work_ = sibling(target_, kWorkSuffix);
  unfinished_.emplace_back(work_);
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
    unfinished_.emplace_back(path, Temporary::Kind::parent);
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
    throw argument_error(
        "output",
        target_.string() +
            " already exists; choose another path or pass --force");
  }
  if (fs::is_symlink(fs::symlink_status(target_, failed))) {
    throw argument_error(
        "output",
        target_.string() +
            " is a link, which --force won't replace; name the folder itself, "
            "or remove the link");
  }
  bool replaceable = fs::is_directory(target_, failed) &&
      (fs::is_empty(target_, failed) ||
       fs::exists(target_ / "config.json", failed) ||
       fs::exists(target_ / "sweep.json", failed));
  if (!replaceable) {
    throw argument_error(
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
  fs::path old = sibling(target_, kOldSuffix);
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
