#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/progress.h"
#include "format/quant_plan.h"
#include "method/stage.h"
#include "model/model.h"
#include "pass/ranks.h"
#include "run/block_walk.h"
#include "run/memory_plan.h"
#include "run/walk_options.h"
#include "run/work/work_folder.h"

namespace pennyweight {

namespace fs = std::filesystem;

struct WalkReport {
  std::string output;
  Json settings;
  std::string data;  // where the text is from, in words
  DataUse data_use;  // rows and files, used and left out
  int64_t tokens = 0;
  int64_t held_out_tokens = 0;
  MemoryPlan plan;
  Json outer = Json::object();  // see OuterFit
  std::vector<Json> blocks;     // see BlockOutcome
  int resumed_blocks = 0;
  std::vector<std::string> kept;  // modules left in floats, with the reason
  int64_t parameters = 0;
  int64_t bytes_in = 0;
  int64_t bytes_out = 0;
  double bits_per_weight = 0;
  double seconds = 0;
  int64_t peak_rss = 0;
  int ranks = 1;
  std::vector<std::string> notes;
};

Json to_json(const WalkReport& report);

/// Routers decide for whole tokens and weigh little: 8 bits, in groups of 64.
QuantSpec router_spec();

/// The plan that gives each of the blocks' linears `linears`, the embedding
/// `embedding` and a head of its own `head`, where they fit.
QuantPlan plan_modules(
    const Model& model,
    const QuantSpec& linears,
    const QuantSpec& embedding,
    const QuantSpec& head);

/// One run of a method over a checkpoint into options.mlx_path, going on with
/// an unfinished run of equal settings. First everything that may be refused:
/// the constructor and calibrate(); then run().
class MethodRun {
 public:
  /// `name` is the command's; all references must outlive this. Errors as
  /// open_model's; invalid_argument for a model that is quantized already and
  /// for an output that may not be written.
  MethodRun(
      const std::string& name,
      const fs::path& model_folder,
      const WalkOptions& options,
      const Ranks& ranks,
      const ProgressFn& progress);

  const Model& model() const {
    return model_;
  }
  /// Keeps a note for the report and tells the user.
  void note(const std::string& text);
  /// A file of its own in the output folder, beside the model's.
  void add_file(const std::string& name, std::string text) {
    added_[name] = std::move(text);
  }

  /// Loads the text. Errors as load_data's.
  void
  calibrate(QuantPlan plan, bool hold_out, const FetchDatasetFn& fetch_dataset);
  /// With text that is loaded already; `source` says where it is from.
  void
  calibrate(QuantPlan plan, CalibrationSplit text, const std::string& source);
  /// Whether no text was held out, of which the user is told. A correction
  /// that fits the calibration text's noise where there is little of it (GPTQ's
  /// shift) is then better left.
  bool note_unchecked();

  /// Walks, writes and reports; on ranks but the first the report has no
  /// output figures. `options` is what determines the result, `summary` begins
  /// the model card's sentence ("GPTQ at 4 bits"). invalid_argument for a
  /// memory limit that can't be kept and for an unfinished run of other
  /// settings.
  WalkReport run(Stage& stage, const Json& options, const std::string& summary);

 private:
  Json settings(const Json& options) const;
  std::unique_ptr<WorkFolder> open_work();
  WalkSettings plan_walk(const Stage& stage, const WorkFolder& work);
  void write_output(
      const WorkFolder& work,
      const PackedBlock& outer,
      const std::string& summary);

  std::string name_;
  fs::path folder_;
  WalkOptions options_;
  const Ranks& ranks_;
  ProgressFn progress_;
  std::chrono::steady_clock::time_point start_;
  Model model_;
  QuantPlan plan_;
  CalibrationSplit split_;
  std::string fingerprint_;  // of the data
  std::map<std::string, std::string> added_;
  WalkReport result_;
};

}  // namespace pennyweight
