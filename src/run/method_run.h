#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/json.h"
#include "format/quant_plan.h"
#include "method/block_method.h"
#include "method/plan_modules.h"
#include "model/model.h"
#include "run/block_walk.h"
#include "run/session.h"
#include "run/walk_options.h"
#include "run/work/work_folder.h"

namespace pennyweight {

namespace fs = std::filesystem;

/// One run of a method over a model into options.mlx_path, going on with an
/// unfinished run of equal settings. First everything that may be refused: the
/// constructor and calibrate(); then run().
class MethodRun {
 public:
  /// All references must outlive this. invalid_argument for a model that is
  /// quantized already and for an output that may not be written.
  MethodRun(
      Session& session,
      const Model& model,
      const fs::path& model_folder,
      const WalkOptions& options);

  /// A file of its own in the output folder, beside the model's.
  void add_file(const std::string& name, std::string text) {
    added_[name] = std::move(text);
  }

  /// Sentences behind the model card's; empty, or begun by a space.
  void add_to_card(std::string sentences) {
    card_ = std::move(sentences);
  }

  /// Loads the text. Errors as load_data's.
  void calibrate(QuantPlan plan, bool hold_out);
  /// With text that is loaded already; `source` says where it is from.
  void
  calibrate(QuantPlan plan, CalibrationSplit text, const std::string& source);
  /// Whether no text was held out, of which the user is told. A correction
  /// that fits the calibration text's noise where there is little of it (GPTQ's
  /// shift) is then better left.
  bool note_unchecked();

  /// Walks, writes and adds to the session's report; on ranks but the first
  /// that has no output figures. `options` is what determines the result,
  /// `title` begins the model card's sentence ("GPTQ at 4 bits").
  /// invalid_argument for a memory limit that can't be kept and for an
  /// unfinished run of other settings.
  void run(BlockMethod& method, const Json& options, const std::string& title);

 private:
  Json settings(const Json& options) const;
  std::unique_ptr<WorkFolder> open_work();
  WalkSettings plan_walk(const BlockMethod& method, const WorkFolder& work);
  void describe(const WorkFolder& work);
  void write_output(
      const WorkFolder& work,
      const PackedBlock& tables,
      const std::string& title);
  int64_t tokens() const {
    return count_tokens(split_.fit) + count_tokens(split_.held_out);
  }

  Session& session_;
  const Model& model_;
  fs::path folder_;
  WalkOptions options_;
  const ProcessGroup& ranks_;
  QuantPlan plan_;
  CalibrationSplit split_;
  std::string fingerprint_;  // of the data
  std::map<std::string, std::string> added_;
  std::string card_;
  Json settings_;
};

}  // namespace pennyweight
