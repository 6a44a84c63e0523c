#pragma once

#include <mlx/array.h>

#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "core/json.h"
#include "core/temporaries.h"

namespace pennyweight {

namespace mx = mlx::core;
namespace fs = std::filesystem;

struct ResumePolicy {
  bool resume = false;  // there must be something to go on with
  bool force = false;   // replace the target, drop work of other settings
};

/// What a long run keeps beside its target so that it can be gone on with: the
/// hidden sibling `.NAME.pennyweight` with the settings and each finished
/// block, which appears whole or not at all. It outlives the process unless
/// remove() is called or no block was finished. One process at a time holds
/// its lock, to the end of the object.
class WorkFolder {
 public:
  /// `settings` is what determines the result. Work of equal settings is gone
  /// on with; of others it is an invalid_argument Error that names those that
  /// differ, or dropped with force. Also invalid_argument: the target is there
  /// without force, or another process works on it; not_found: nothing to
  /// resume; corrupt: damaged settings. One that is no `writer` only reads.
  WorkFolder(
      const fs::path& target,
      const Json& settings,
      const ResumePolicy& policy,
      bool writer = true);
  ~WorkFolder();
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;

  const fs::path& path() const {
    return path_;
  }
  /// Where runs that this one is made of have their outputs and work folders;
  /// it stays while there is a state.
  fs::path stages() const {
    return path_ / kStages;
  }
  bool resumed() const {
    return finished_at_start_ > 0;
  }
  /// Blocks 0 .. finished() - 1 are there.
  int finished() const {
    return finished_;
  }

  /// The next block. io Error on a full disk.
  void save_block(
      int index,
      const std::map<std::string, mx::array>& tensors,
      const Json& report);
  /// Views of the mapped file; corrupt Error when its checksum is wrong.
  std::map<std::string, mx::array> load_block(int index) const;
  Json load_report(int index) const;

  /// Instead of blocks, for a run that goes over all of them again and again:
  /// what it has come to after `step` steps. A later state replaces it.
  void save_state(
      int64_t step,
      const std::map<std::string, mx::array>& tensors,
      const Json& report);
  /// The step of the state that is there.
  std::optional<int64_t> state() const {
    return state_;
  }
  std::map<std::string, mx::array> load_state() const;
  Json load_state_report() const;

  /// Removes all of it, the target being written.
  void remove();

 private:
  static constexpr const char* kStages = "stages";

  void open(const Json& settings, const ResumePolicy& policy);
  void lock();
  void unlock();
  void discard();
  void compare_settings(const Json& settings) const;
  void start_anew(const Json& settings);
  void remove_all_but(const std::set<std::string>& kept) const;
  bool holds_work() const {
    return finished_ > 0 || state_;
  }
  void count_finished();
  void drop_damaged();
  void drop_unfinished() const;
  fs::path block_path(int index) const;
  fs::path state_path(int64_t step) const;

  fs::path target_;
  fs::path path_;
  bool writer_;
  int lock_ = -1;
  int finished_ = 0;
  int finished_at_start_ = 0;
  std::optional<int64_t> state_;
  Temporary named_;  // path_, while it holds no work
};

}  // namespace pennyweight
