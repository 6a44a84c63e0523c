#include "pipeline/work_folder.h"

#include <fcntl.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <vector>

#include "checkpoint/safetensors.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "core/hash.h"
#include "export/model_writer.h"

namespace pennyweight {

namespace {

constexpr const char* kWhere = "resume";

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

std::string checksum(const std::map<std::string, mx::array>& tensors) {
  Hash hash;
  for (const auto& [name, tensor] : tensors) {
    hash.add(name);
    hash.add(tensor.data<char>(), tensor.nbytes());
  }
  return hash.text();
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
  bool has_settings = fs::exists(path_ / "settings.json");
  if (!has_settings && policy.resume) {
    if (writer_) {
      remove();
    }
    throw Error(
        ErrorCode::not_found,
        kWhere,
        "there is no unfinished run for " + target_.string() +
            "; leave out --resume");
  }
  if (has_settings && !(policy.force && writer_)) {
    compare_settings(settings);
  } else if (has_settings) {
    try {
      compare_settings(settings);
    } catch (const Error&) {
      start_anew(settings);
    }
  } else if (writer_) {
    start_anew(settings);
  }
  count_finished();
  finished_at_start_ = finished_;
  if (writer_) {
    drop_unfinished();
  }
}

WorkFolder::~WorkFolder() {
  if (lock_ >= 0) {
    if (finished_ == 0) {
      std::error_code ignored;
      fs::remove_all(path_, ignored);
    }
    ::close(lock_);
  }
}

void WorkFolder::lock() {
  auto file = path_ / "lock";
  lock_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ < 0) {
    throw io_error(kWhere, "can't create", file.string(), errno);
  }
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_);
    lock_ = -1;
    throw Error(
        ErrorCode::invalid_argument,
        kWhere,
        "another process is writing " + target_.string() +
            "; wait for it or choose another output");
  }
}

void WorkFolder::compare_settings(const Json& settings) const {
  auto before = read_json(path_ / "settings.json");
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
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(path_, failed)) {
    if (entry.path().filename() != "lock") {
      fs::remove_all(entry.path(), failed);
    }
  }
  write_file(path_ / "settings.json", settings.dump(2) + "\n");
}

fs::path WorkFolder::block_path(int index) const {
  char name[32];
  std::snprintf(name, sizeof(name), "block-%05d", index);
  return path_ / name;
}

void WorkFolder::count_finished() {
  finished_ = 0;
  while (fs::exists(block_path(finished_))) {
    ++finished_;
  }
}

// What a killed process had begun, and blocks behind a gap.
void WorkFolder::drop_unfinished() const {
  std::vector<fs::path> leftovers;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(path_, ignored)) {
    auto name = entry.path().filename().string();
    bool kept = name == "lock" || name == "settings.json";
    for (int i = 0; i < finished_; ++i) {
      kept = kept || entry.path() == block_path(i);
    }
    if (!kept) {
      leftovers.push_back(entry.path());
    }
  }
  for (const auto& leftover : leftovers) {
    fs::remove_all(leftover, ignored);
  }
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
  std::vector<TensorPlan> plan;
  std::map<std::string, mx::array> dense;
  for (const auto& [name, tensor] : tensors) {
    plan.push_back({name, tensor.dtype(), tensor.shape()});
    auto copy = mx::contiguous(tensor);
    mx::eval(copy);
    dense.emplace(name, std::move(copy));
  }
  try {
    AtomicFolder folder(block_path(index), false);
    ModelWriter writer(folder.path(), plan);
    for (const auto& [name, tensor] : dense) {
      writer.write(name, tensor);
    }
    Json report{{"checksum", checksum(dense)}, {"figures", figures}};
    write_file(folder.path() / "report.json", report.dump(2) + "\n");
    folder.commit();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::io) {
      throw;
    }
    throw Error(
        ErrorCode::io,
        kWhere,
        std::string(error.what()) + "; run again to go on after " +
            std::to_string(finished_) + " finished blocks");
  }
  ++finished_;
}

std::map<std::string, mx::array> WorkFolder::load_block(int index) const {
  auto path = block_path(index) / "model.safetensors";
  auto file = SafetensorsFile::open(path);
  std::map<std::string, mx::array> tensors;
  for (const auto& entry : file->entries()) {
    tensors.emplace(entry.name, SafetensorsFile::load(file, entry));
  }
  auto report = read_json(block_path(index) / "report.json");
  if (report.value("checksum", "") != checksum(tensors)) {
    throw Error(
        ErrorCode::corrupt,
        kWhere,
        path.string() + " is damaged; start anew with --force");
  }
  return tensors;
}

Json WorkFolder::load_report(int index) const {
  return read_json(block_path(index) / "report.json").value("figures", Json());
}

void WorkFolder::remove() {
  std::error_code failed;
  finished_ = 0;
  fs::remove_all(path_, failed);
  if (failed) {
    throw io_error(kWhere, "can't remove", path_.string(), failed.value());
  }
}

}  // namespace pennyweight
