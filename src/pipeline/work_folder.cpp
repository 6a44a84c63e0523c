#include "pipeline/work_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <vector>

#include "core/atomic_file.h"
#include "core/error.h"
#include "pipeline/work_part.h"

namespace pennyweight {

namespace {

constexpr const char* kWhere = "resume";
constexpr const char* kLock = "lock";
constexpr const char* kSettings = "settings.json";

fs::path work_path(const fs::path& target) {
  return target.parent_path() /
      ("." + target.filename().string() + ".pennyweight");
}

fs::path normal(const fs::path& path) {
  auto absolute = fs::absolute(path).lexically_normal();
  return absolute.has_filename() ? absolute : absolute.parent_path();
}

// The names, "a.b" for what is nested, of values that differ.
void list_differences(
    const Json& before,
    const Json& now,
    const std::string& name,
    std::vector<std::string>& found) {
  if (before.is_object() && now.is_object()) {
    Json keys = before;
    keys.update(now);
    for (const auto& [key, unused] : keys.items()) {
      list_differences(
          before.value(key, Json()),
          now.value(key, Json()),
          name.empty() ? key : name + "." + key,
          found);
    }
  } else if (before != now) {
    found.push_back(
        name + " (" + one_line(before.dump(), 60) + ", now " +
        one_line(now.dump(), 60) + ")");
  }
}

}  // namespace

WorkFolder::WorkFolder(
    const fs::path& target,
    const Json& settings,
    const ResumePolicy& policy,
    bool writer)
    : target_(normal(target)), path_(work_path(target_)), writer_(writer) {
  if (writer_) {
    // Checks the target and makes its parents, then leaves nothing.
    AtomicFolder probe(target_, policy.force);
    std::error_code failed;
    fs::create_directories(path_, failed);
    if (failed) {
      throw io_error(kWhere, "can't create", path_.string(), failed.value());
    }
    lock();
  }
  try {
    open(settings, policy);
  } catch (...) {
    count_finished();
    discard();
    throw;
  }
  if (writer_ && !holds_work()) {
    named_ = Temporary(path_);
  }
}

void WorkFolder::open(const Json& settings, const ResumePolicy& policy) {
  bool has_settings = fs::exists(path_ / kSettings);
  if (!has_settings && policy.resume) {
    throw Error(
        ErrorCode::not_found,
        kWhere,
        "there is no unfinished run for " + target_.string() +
            "; leave out --resume");
  }
  count_finished();
  if (!writer_) {
    compare_settings(settings);
  } else if (!has_settings || (!holds_work() && !policy.resume)) {
    start_anew(settings);
  } else if (!policy.force) {
    compare_settings(settings);
  } else {
    try {
      compare_settings(settings);
      drop_damaged();
    } catch (const Error& error) {
      if (error.code() == ErrorCode::io) {
        throw;
      }
      start_anew(settings);
    }
  }
  finished_at_start_ = finished_;
  if (writer_) {
    drop_unfinished();
  }
}

WorkFolder::~WorkFolder() {
  discard();
}

// Of a folder in which nothing is finished nothing stays.
void WorkFolder::discard() {
  if (lock_ >= 0 && !holds_work()) {
    std::error_code ignored;
    // First what needs no descriptor, of which there may be none left.
    for (const char* name : {kSettings, kLock}) {
      fs::remove(path_ / name, ignored);
    }
    fs::remove(path_, ignored);
    fs::remove_all(path_, ignored);
  }
  unlock();
}

void WorkFolder::lock() {
  auto file = path_ / kLock;
  lock_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ < 0) {
    const int failed = errno;
    ::rmdir(path_.c_str());  // it goes where it is empty: made just now
    throw io_error(kWhere, "can't create", file.string(), failed);
  }
  bool locked = ::flock(lock_, LOCK_EX | LOCK_NB) == 0;
  int failed = errno;
  // The one who had it may have removed the file after it was opened here.
  struct stat opened {};
  struct stat named {};
  bool same = ::fstat(lock_, &opened) == 0 &&
      ::stat(file.c_str(), &named) == 0 && opened.st_dev == named.st_dev &&
      opened.st_ino == named.st_ino;
  if (locked && same) {
    return;
  }
  unlock();
  if (!locked && failed != EWOULDBLOCK) {
    throw io_error(kWhere, "can't lock", file.string(), failed);
  }
  throw Error(
      ErrorCode::invalid_argument,
      kWhere,
      "another process is writing " + target_.string() +
          "; wait for it or choose another output");
}

void WorkFolder::unlock() {
  if (lock_ >= 0) {
    ::close(lock_);
    lock_ = -1;
  }
}

void WorkFolder::compare_settings(const Json& settings) const {
  auto before = read_work_json(path_ / kSettings);
  std::vector<std::string> differences;
  list_differences(before, settings, "", differences);
  if (differences.empty()) {
    return;
  }
  std::string names;
  for (const auto& difference : differences) {
    names += (names.empty() ? "" : ", ") + difference;
  }
  throw Error(
      ErrorCode::invalid_argument,
      kWhere,
      "an unfinished run for " + target_.string() + " has other settings: " +
          names + "; use those, or drop its work with --force");
}

void WorkFolder::start_anew(const Json& settings) {
  // A block that stayed would pass for one of the new settings.
  remove_all_but({kLock});
  finished_ = 0;
  state_.reset();
  write_file(path_ / kSettings, settings.dump(2) + "\n");
}

void WorkFolder::remove_all_but(const std::set<std::string>& kept) const {
  std::error_code failed;
  std::vector<fs::path> leftovers;
  for (const auto& entry : fs::directory_iterator(path_, failed)) {
    if (!kept.contains(entry.path().filename().string())) {
      leftovers.push_back(entry.path());
    }
  }
  for (const auto& leftover : leftovers) {
    if (!failed) {
      fs::remove_all(leftover, failed);
    }
  }
  if (failed) {
    throw io_error(kWhere, "can't empty", path_.string(), failed.value());
  }
}

fs::path WorkFolder::block_path(int index) const {
  char name[32];
  std::snprintf(name, sizeof(name), "block-%05d", index);
  return path_ / name;
}

fs::path WorkFolder::state_path(int64_t step) const {
  char name[40];
  std::snprintf(name, sizeof(name), "state-%010" PRId64, step);
  return path_ / name;
}

void WorkFolder::count_finished() {
  finished_ = 0;
  while (fs::exists(block_path(finished_))) {
    ++finished_;
  }
  state_.reset();
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(path_, ignored)) {
    const auto name = entry.path().filename().string();
    int64_t step = 0;
    if (std::sscanf(name.c_str(), "state-%" SCNd64, &step) == 1 &&
        entry.path() == state_path(step)) {
      state_ = std::max(state_.value_or(0), step);
    }
  }
}

void WorkFolder::drop_damaged() {
  for (int i = 0; i < finished_; ++i) {
    try {
      load_block(i);
      load_report(i);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::corrupt) {
        throw;
      }
      finished_ = i;
    }
  }
  if (state_) {
    try {
      load_state();
    } catch (const Error& error) {
      if (error.code() != ErrorCode::corrupt) {
        throw;
      }
      state_.reset();
    }
  }
}

// What a killed process had begun, and blocks behind a gap; runs of their own
// that a run is made of stay.
void WorkFolder::drop_unfinished() const {
  std::set<std::string> kept{kLock, kSettings};
  if (state_) {
    kept.insert(kStages);
  }
  for (int i = 0; i < finished_; ++i) {
    kept.insert(block_path(i).filename().string());
  }
  if (state_) {
    kept.insert(state_path(*state_).filename().string());
  }
  remove_all_but(kept);
}

void WorkFolder::save_block(
    int index,
    const std::map<std::string, mx::array>& tensors,
    const Json& figures) {
  if (index != finished_) {
    throw Error(
        ErrorCode::invalid_argument,
        kWhere,
        "block " + std::to_string(index) + " is not the next");
  }
  save_work_part(
      block_path(index),
      tensors,
      figures,
      std::to_string(finished_) + " finished blocks");
  ++finished_;
  named_.release();
}

void WorkFolder::save_state(
    int64_t step,
    const std::map<std::string, mx::array>& tensors,
    const Json& figures) {
  save_work_part(
      state_path(step),
      tensors,
      figures,
      std::to_string(state_.value_or(0)) + " steps");
  const auto before = state_;
  state_ = step;
  named_.release();
  std::error_code failed;
  if (before && before != step) {
    fs::remove_all(state_path(*before), failed);
  }
  if (failed) {
    throw io_error(
        kWhere, "can't remove", state_path(*before).string(), failed.value());
  }
}

std::map<std::string, mx::array> WorkFolder::load_block(int index) const {
  return load_work_part(block_path(index));
}

Json WorkFolder::load_report(int index) const {
  return load_work_figures(block_path(index));
}

std::map<std::string, mx::array> WorkFolder::load_state() const {
  return load_work_part(state_path(*state_));
}

Json WorkFolder::load_state_report() const {
  return load_work_figures(state_path(*state_));
}

void WorkFolder::remove() {
  std::error_code failed;
  finished_ = 0;
  state_.reset();
  fs::remove_all(path_, failed);
  if (failed) {
    throw io_error(kWhere, "can't remove", path_.string(), failed.value());
  }
  unlock();  // what is there from now on is another process's
}

}  // namespace pennyweight
