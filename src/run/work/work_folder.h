#pragma once

#include <mlx/array.h>

#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/files/dir_handle.h"
#include "core/files/temporaries.h"
#include "core/json.h"
#include "method/state_store.h"
#include "run/work/work_part.h"
#include "run/work/work_settings.h"

namespace pennyweight {

namespace mx = mlx::core;
namespace fs = std::filesystem;

struct ResumePolicy {
  /// There must be something to go on with.
  bool resume = false;
  /// Replace the target and, without `resume`, start afresh.
  bool force = false;
  /// Part of a larger run, which has decided already: its target may be
  /// replaced, work of other settings is dropped.
  bool part = false;
};

/// What a long run keeps beside its target so that it can be gone on with: the
/// hidden sibling `.NAME.pennyweight` with the settings and each finished
/// block, which appears whole or not at all. It outlives the process unless
/// remove() is called or no block was finished. One process at a time holds
/// its lock, to the end of the object.
///
/// The folder is opened once, and never through a link; all that is read or
/// removed in it is reached by that handle, and links in it are not followed.
/// What is found damaged, foreign or out of its place is made again: warnings()
/// says so.
class WorkFolder : public StateStore {
 public:
  /// Work of equal settings on the same models is gone on with. Of models whose
  /// files hold something else now it is dropped, with a warning, and so are
  /// blocks from the first damaged one on. Of other settings, or of models in
  /// other folders, it is an invalid_argument Error that names what differs, or
  /// dropped with force. Also invalid_argument: the target is there without
  /// force, something else than a folder stands in the work folder's place
  /// (with force it goes, of a link only the link), or a folder that no run has
  /// made, or another process works on it; not_found: nothing to resume. One
  /// that is no `writer` only reads.
  WorkFolder(
      const fs::path& target,
      const WorkSettings& settings,
      const ResumePolicy& policy,
      bool writer = true);
  ~WorkFolder();
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;

  /// io Error where it leads elsewhere by now: what is not done by this object
  /// is done by this path.
  const fs::path& path() const;
  /// What the user should be told of what was found.
  const std::vector<std::string>& warnings() const {
    return warnings_;
  }
  /// Where runs that this one is made of have their outputs and work folders;
  /// it stays while there is a state. Errors as path()'s.
  DirHandle stages() const;
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

  /// Instead of blocks, for a run that goes over all of them again and again.
  void save_state(
      int64_t step,
      const std::map<std::string, mx::array>& tensors,
      const Json& report) override;
  std::optional<int64_t> state() const override {
    return state_;
  }
  std::map<std::string, mx::array> load_state() const override;
  Json load_state_report() const override;

  /// Removes all of it, the target being written.
  void remove();

 private:
  void enter(const ResumePolicy& policy);
  void open(const WorkSettings& settings, const ResumePolicy& policy);
  void require_own(const ResumePolicy& policy) const;
  void go_on(
      const WorkSettings& settings,
      const Json& before,
      const ResumePolicy& policy);
  void discard();
  void remove_if_empty() const;
  std::optional<Json> read_settings() const;
  void start_anew(const WorkSettings& settings);
  void remove_all_but(const std::set<std::string>& kept) const;
  bool holds_work() const {
    return finished_ > 0 || state_;
  }
  void count_finished();
  void drop_damaged();
  void drop_unfinished() const;
  WorkPart block(int index) const;
  WorkPart state(int64_t step) const;

  fs::path target_;
  fs::path path_;
  bool writer_;
  std::optional<DirHandle> parent_;
  std::optional<DirHandle> folder_;
  std::string run_;  // what makes a part this run's
  Descriptor lock_;
  int finished_ = 0;
  int finished_at_start_ = 0;
  std::optional<int64_t> state_;
  std::vector<std::string> warnings_;
  std::vector<fs::path> made_;  // parents that did not exist, inner first
  std::vector<Temporary> unfinished_;  // they and path_, while it holds no work
};

}  // namespace pennyweight
