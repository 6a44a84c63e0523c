#include "run/work/work_folder.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "core/error.h"
#include "core/files/atomic_file.h"
#include "core/json.h"
#include "run/work/work_lock.h"
#include "run/work/work_names.h"

namespace pennyweight {

namespace {

constexpr const char* kSettings = "settings.json";
constexpr const char* kStageFolder = "stages";

fs::path work_path(const fs::path& target) {
  return target.parent_path() /
      ("." + target.filename().string() + ".pennyweight");
}

// Damage that came after the folder was opened ends the run; the next finds it
// and makes good.
template <class F>
auto read_now(F&& read) {
  try {
    return read();
  } catch (const Error& error) {
    throw Error(
        error.code(),
        "resume",
        reason_of(error) + "; run again, and what is damaged is made again");
  }
}

}  // namespace

WorkFolder::WorkFolder(
    const fs::path& target,
    const WorkSettings& settings,
    const ResumePolicy& policy,
    bool writer)
    : target_(whole_path(target)), path_(work_path(target_)), writer_(writer) {
  // A descriptor to list the folder by, should it have to go and none be left.
  Descriptor spare(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!spare) {
    throw io_error("resume", "can't open", "/dev/null", errno);
  }
  try {
    enter(policy);
    if (writer_) {
      lock_ = lock_work(*folder_, path_, target_);
    }
  } catch (...) {
    remove_if_empty();
    throw;
  }
  try {
    open(settings, policy);
  } catch (...) {
    spare.reset();
    count_finished();
    discard();
    throw;
  }
  if (writer_ && !holds_work()) {
    unfinished_.emplace_back(path_);
    for (const auto& parent : made_) {
      unfinished_.emplace_back(parent, Temporary::Kind::parent);
    }
  }
}

void WorkFolder::enter(const ResumePolicy& policy) {
  if (writer_) {
    std::error_code absent;
    for (auto path = target_.parent_path();
         !fs::exists(path, absent) && path.has_filename();
         path = path.parent_path()) {
      made_.push_back(path);
    }
    // Checks the target, and leaves nothing, no parents either.
    { const AtomicFolder probe(target_, policy.force || policy.part); }
    std::error_code failed;
    fs::create_directories(target_.parent_path(), failed);
    if (failed) {
      throw io_error("resume", "can't create", path_.string(), failed.value());
    }
  }
  parent_ = DirHandle::open(target_.parent_path());
  const auto name = path_.filename().string();
  const auto kind = parent_->kind(name);
  if (kind && *kind != DirHandle::Kind::folder) {
    if (!writer_ || !(policy.part || (policy.force && !policy.resume))) {
      throw argument_error(
          "resume",
          path_.string() + " is " + kind_name(*kind) +
              " where an unfinished run is kept; it is not followed: remove "
              "it, or pass --force, which removes it and nothing else");
    }
    parent_->remove(name);
  }
  folder_ =
      writer_ ? parent_->open_or_make_folder(name) : parent_->open_folder(name);
  require_own(policy);
}

void WorkFolder::open(
    const WorkSettings& settings,
    const ResumePolicy& policy) {
  run_ = run_of(settings);
  const auto before = read_settings();
  const bool readable = before && !before->is_null();
  if (policy.resume && !readable) {
    throw not_found_error(
        "resume",
        (before ? (path_ / kSettings).string() + " is damaged, so that "
                : std::string()) +
            "there is no unfinished run for " + target_.string() +
            "; leave out --resume");
  }
  count_finished();
  if (!writer_) {
    compare_settings(settings, before.value_or(Json()), target_);
    return;
  }
  const bool afresh = policy.force && !policy.resume;
  const bool worked = holds_work() || has_blocks_from(*folder_, 0);
  if (readable && !afresh && (worked || policy.resume)) {
    go_on(settings, *before, policy);
  } else {
    if (!readable && !afresh && (before || worked)) {
      warnings_.push_back(
          (path_ / kSettings).string() +
          (before ? " is damaged" : " is missing") +
          ": the unfinished run is started afresh");
    }
    start_anew(settings);
  }
  finished_at_start_ = finished_;
  drop_unfinished();
}

// What has the name of a work folder and is none may be somebody's own.
void WorkFolder::require_own(const ResumePolicy& policy) const {
  if (!writer_ || folder_->kind(kSettings) || policy.part || policy.force) {
    return;
  }
  if (const auto name = foreign_entry(*folder_)) {
    throw argument_error(
        "resume",
        path_.string() + " holds " + shown(*name) +
            ", which no unfinished run left there; move the folder away, or "
            "pass --force, which empties it");
  }
}

void WorkFolder::go_on(
    const WorkSettings& settings,
    const Json& before,
    const ResumePolicy& policy) {
  try {
    compare_settings(settings, before, target_);
  } catch (const Error&) {
    if (!policy.part) {
      throw;
    }
    start_anew(settings);
    return;
  }
  if (const auto changed = changed_model(settings, before)) {
    warnings_.push_back(
        "what the model in " + *changed +
        " holds has changed since the unfinished run began: what was "
        "finished is made again");
    start_anew(settings);
    return;
  }
  drop_damaged();
}

// Absent: there are none; null: damaged.
std::optional<Json> WorkFolder::read_settings() const {
  if (!folder_->kind(kSettings)) {
    return std::nullopt;
  }
  try {
    return read_work_json(*folder_, kSettings, kSettings);
  } catch (const Error&) {
    return Json();
  }
}

WorkFolder::~WorkFolder() {
  try {
    discard();
  } catch (const Error&) {
    // What stays is an empty run, of which the next one takes the place.
  }
}

// Of a folder in which nothing is finished nothing stays.
void WorkFolder::discard() {
  if (lock_ && !holds_work()) {
    remove();
    remove_if_empty();
  }
  lock_.reset();
}

// The folder and the parents that were made for it.
void WorkFolder::remove_if_empty() const {
  if (writer_ && parent_) {
    ::unlinkat(parent_->fd(), path_.filename().c_str(), AT_REMOVEDIR);
  }
  for (const auto& parent : made_) {
    ::rmdir(parent.c_str());
  }
}

void WorkFolder::start_anew(const WorkSettings& settings) {
  // A block that stayed would pass for one of the new settings.
  remove_all_but({kWorkLock});
  finished_ = 0;
  state_.reset();
  write_work_json(*folder_, kSettings, to_json(settings), kSettings);
}

void WorkFolder::remove_all_but(const std::set<std::string>& kept) const {
  for (const auto& name : folder_->names()) {
    if (!kept.contains(name)) {
      folder_->remove(name);
    }
  }
}

const fs::path& WorkFolder::path() const {
  if (!folder_->is_in_place()) {
    throw Error(
        ErrorCode::io,
        "resume",
        path_.string() +
            " is no longer the folder that this run keeps its work in; run "
            "again");
  }
  return path_;
}

DirHandle WorkFolder::stages() const {
  path();  // what is not done by this object is done by paths
  const auto kind = folder_->kind(kStageFolder);
  if (kind && *kind != DirHandle::Kind::folder) {
    folder_->remove(kStageFolder);
  }
  return folder_->open_or_make_folder(kStageFolder);
}

WorkPart WorkFolder::block(int index) const {
  return {*folder_, block_name(index), run_};
}

WorkPart WorkFolder::state(int64_t step) const {
  return {*folder_, state_name(step), run_};
}

void WorkFolder::count_finished() {
  finished_ = 0;
  while (folder_->kind(block_name(finished_))) {
    ++finished_;
  }
  const auto states = list_states(*folder_);
  state_ = states.empty() ? std::nullopt : std::optional(states.front());
}

void WorkFolder::drop_damaged() {
  std::optional<std::string> fault;
  for (int i = 0; i < finished_ && !fault; ++i) {
    fault = fault_of(block(i));
    finished_ = fault ? i : finished_;
  }
  if (!fault && has_blocks_from(*folder_, finished_)) {
    fault = (path_ / block_name(finished_)).string() + " is missing";
  }
  if (fault) {
    warnings_.push_back(
        *fault + ": block " + std::to_string(finished_) +
        " and those after it are made again");
  }
  state_.reset();
  for (const int64_t step : list_states(*folder_)) {
    fault = fault_of(state(step));
    if (!fault) {
      state_ = step;
      return;
    }
    warnings_.push_back(*fault + ": what led to it is done again");
  }
}

// What a killed process had begun, and blocks behind a gap; runs of their own
// that a run is made of stay.
void WorkFolder::drop_unfinished() const {
  std::set<std::string> kept{kWorkLock, kSettings};
  if (state_) {
    kept.insert({kStageFolder, state_name(*state_)});
  }
  for (int i = 0; i < finished_; ++i) {
    kept.insert(block_name(i));
  }
  remove_all_but(kept);
}

void WorkFolder::save_block(
    int index,
    const std::map<std::string, mx::array>& tensors,
    const Json& figures) {
  if (index != finished_) {
    throw argument_error(
        "resume", "block " + std::to_string(index) + " is not the next");
  }
  save_work_part(
      block(index),
      tensors,
      figures,
      std::to_string(finished_) + " finished blocks");
  ++finished_;
  unfinished_.clear();
}

void WorkFolder::save_state(
    int64_t step,
    const std::map<std::string, mx::array>& tensors,
    const Json& figures) {
  save_work_part(
      state(step),
      tensors,
      figures,
      std::to_string(state_.value_or(0)) + " steps");
  const auto before = state_;
  state_ = step;
  unfinished_.clear();
  if (before && before != step) {
    folder_->remove(state_name(*before));
  }
}

std::map<std::string, mx::array> WorkFolder::load_block(int index) const {
  return read_now([&] { return load_work_part(block(index)); });
}

Json WorkFolder::load_report(int index) const {
  return read_now([&] { return load_work_figures(block(index)); });
}

std::map<std::string, mx::array> WorkFolder::load_state() const {
  return read_now([&] { return load_work_part(state(*state_)); });
}

Json WorkFolder::load_state_report() const {
  return read_now([&] { return load_work_figures(state(*state_)); });
}

void WorkFolder::remove() {
  finished_ = 0;
  state_.reset();
  // The lock last, so that no other process begins in what is being removed.
  remove_all_but({kWorkLock});
  folder_->remove(kWorkLock);
  const auto name = path_.filename();
  if (folder_->is_in_place() &&
      ::unlinkat(parent_->fd(), name.c_str(), AT_REMOVEDIR) != 0 &&
      errno != ENOTEMPTY && errno != EEXIST && errno != ENOENT) {
    throw io_error("resume", "can't remove", path_.string(), errno);
  }
  lock_.reset();  // what is there from now on is another process's
}

}  // namespace pennyweight
