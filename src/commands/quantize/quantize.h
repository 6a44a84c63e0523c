#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/options.h"
#include "core/progress.h"
#include "pass/calibration_mix.h"
#include "run/stage_sizes.h"

namespace pennyweight {

namespace fs = std::filesystem;

struct QuantizeOptions {
  PlanOptions plan;
  TargetOptions target;
  std::string output = "mlx_model";
  std::optional<std::string> recipe;
  std::optional<std::string> time_limit;
  bool resume = false;
  bool force = false;
  std::string report;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    PlanOptions::visit(self.plan, option);
    TargetOptions::visit(self.target, option);
    option(
        {.name = "output",
         .help = "Folder to write; must not exist unless --force",
         .short_name = "o",
         .aliases = {"mlx-path"},
         .affects_result = false},
        self.output);
    option(
        {.name = "recipe",
         .help = "Do again what this recipe.json says: widths, stages, text"},
        self.recipe);
    option(
        {.name = "time-limit",
         .help = "Such as 30m or 2h: stages are cut to what fits, by the "
                 "machine's speed"},
        self.time_limit);
    option(
        {.name = "resume",
         .help = "Insist on going on with an unfinished run (one with the same "
                 "settings is gone on with anyway)",
         .affects_result = false},
        self.resume);
    option(
        {.name = "force",
         .help = "Replace an output folder and report files that exist; start "
                 "afresh rather than go on with an unfinished run, unless with "
                 "--resume",
         .affects_result = false},
        self.force);
    option(
        {.name = "report",
         .help = "Write all figures to this JSON file",
         .affects_result = false},
        self.report);
  }
};

/// invalid_argument, naming it, for a flag that a recipe has the say on: all
/// that affect the result but where the text lies.
void refuse_beside_recipe(const QuantizeOptions& options);

struct StageOutcome {
  std::string name;  // nearest, gptq, learned, dwq
  double kl = 0;     // on the gate's text
  double seconds = 0;
  bool kept = false;
  std::string note{};
  Json figures = Json::object();
};

Json to_json(const StageOutcome& outcome);

struct QuantizeReport {
  std::string output;
  int64_t parameters = 0;
  int64_t bytes_in = 0;
  int64_t bytes_out = 0;
  double bits_per_weight = 0;
  std::vector<StageOutcome> stages;
  double kl = 0;  // on the report's text
  double perplexity = 0;
  double perplexity_reference = 0;
  double top1 = 0;
  double seconds = 0;
  int64_t peak_rss = 0;
  std::vector<std::string> notes;
  Json page;  // what report.html shows
};

Json to_json(const QuantizeReport& report);

/// Chooses each module's width for the size asked for, then rounds: by GPTQ,
/// by learning the rounding of blocks with few bits, and by distilling scales
/// and biases. Each stage is kept only where the KL to the full model falls on
/// text that it was not fitted to. Writes options.output with recipe.json,
/// report.html and a model card. Errors as convert's, load_mix's and the
/// methods'; invalid_argument for a size that the candidates can't meet.
QuantizeReport quantize_model(
    const fs::path& model_folder,
    const QuantizeOptions& options,
    const FetchDatasetFn& fetch_dataset,
    const ProgressFn& progress = {});

}  // namespace pennyweight
