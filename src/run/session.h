#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/files/output_file.h"
#include "core/json.h"
#include "core/progress.h"
#include "export/write_model.h"
#include "model/model.h"
#include "pass/calibration_mix.h"
#include "pass/process_group.h"
#include "run/options.h"
#include "run/run_report.h"
#include "text/load_data.h"

namespace pennyweight {

namespace fs = std::filesystem;

/// One call of a command: whom it tells of its progress, what it has to report
/// so far, and the processes that share it.
class Session {
 public:
  /// `command` begins what is said. `group` must outlive this.
  Session(
      std::string command,
      ProgressFn progress,
      const ProcessGroup& group = ProcessGroup::world());
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const std::string& command() const {
    return command_;
  }
  const ProgressFn& progress() const {
    return progress_;
  }
  const ProcessGroup& group() const {
    return group_;
  }
  RunReport& report() {
    return report_;
  }

  /// Tells the user, and keeps it for the report.
  void note(const std::string& text);
  void note(const std::vector<std::string>& texts);
  /// Tells the user.
  void say(const std::string& text) const;
  /// invalid_argument Error.
  [[noreturn]] void refuse(const std::string& what) const;
  /// not_supported Error where a launcher has started several processes.
  void require_one_process() const;
  double seconds() const;

  /// The folder of a model or data set that an option names.
  fs::path model_folder(const std::string& name) const;
  FetchDatasetFn fetch_dataset() const;
  /// Who brings a model's files, of one that is streamed (run/streamed.h).
  std::shared_ptr<ShardProvider> shards_of(const std::string& name) const;
  /// check_folders() of the model's folder and the one to write.
  void check_folders(const fs::path& model, const OutputOptions& output) const;
  /// load_data() by the tokenizer of `folder`, `self` sampled from `model`.
  /// The report says where the text is from and what was left out.
  TokenData read_text(
      const fs::path& folder,
      const Model& model,
      const LoadDataOptions& options,
      const std::optional<std::string>& memory_limit = {});
  /// load_mix() likewise.
  CalibrationMix read_mix(
      const fs::path& folder,
      const Model& model,
      const MixOptions& options,
      const MixSize& size,
      const std::optional<std::string>& memory_limit);
  /// Keeps for the report who packed the full model, if anyone, and says what
  /// its publisher packed.
  void describe_packing(const Model& model);
  /// `model`'s size as the input's, its packing and its notes.
  void describe_input(const Model& model);
  /// What was written, and where.
  void describe_output(const std::string& folder, const WrittenModel& model);
  /// The report with its time and memory.
  const RunReport& finish();

  /// Folders of the hub's models and data sets (run/fetched.h), where the
  /// caller hands them over.
  std::optional<Json> fetched{};

  /// A file that an option names for a result, so that no two options name one.
  std::function<void(const std::string& path, bool force, const char* option)>
      reserve_file = [](const std::string&, bool, const char*) {};

 private:
  Json hub_folders() const;
  void describe_data(
      const std::string& source,
      const DataUse& use,
      const std::vector<std::string>& notes);

  std::string command_;
  ProgressFn progress_;
  const ProcessGroup& group_;
  std::chrono::steady_clock::time_point start_;
  RunReport report_;
};

}  // namespace pennyweight
