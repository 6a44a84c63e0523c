#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/options.h"
#include "core/progress.h"
#include "format/quant_plan.h"
#include "text/load_data.h"

namespace pennyweight {

namespace fs = std::filesystem;

/// Flags and defaults are mlx_lm.dynamic_quant's, and what that lacks.
struct DynamicQuantOptions {
  std::string model;
  std::string mlx_path = "mlx_model";
  std::string assume_family;
  LoadDataOptions data;
  double target_bpw = 5.0;
  std::optional<std::string> target_size;
  int low_bits = 4;
  int low_group_size = 64;
  int high_bits = 5;
  int high_group_size = 64;
  std::optional<std::string> candidates;
  std::optional<std::string> sensitivities;
  std::optional<std::string> sensitivities_out;
  std::string then;
  bool report_ppl = false;
  bool grad_checkpoint = false;
  std::string accumulation_dtype = "float32";
  int batch_size = 0;
  bool force = false;
  std::string report;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "model",
         .help = "Model folder, or a hub id such as org/name[@revision]",
         .aliases = {"hf-path"},
         .required = true,
         .affects_result = false},
        self.model);
    option(
        {.name = "mlx-path",
         .help = "Folder to write; must not exist unless --force",
         .affects_result = false},
        self.mlx_path);
    option(
        {.name = "assume-family",
         .help = "Read a model of an unknown model_type as this family's"},
        self.assume_family);
    LoadDataOptions::visit(self.data, option);
    option(
        {.name = "target-bpw",
         .help = "Bits a weight, scales included, that are not passed"},
        self.target_bpw);
    option(
        {.name = "target-size",
         .help = "Instead: bytes of all tensors, such as 4.2GB"},
        self.target_size);
    option(
        {.name = "low-bits",
         .help = "Bits at which sensitivities are measured, and the fewest "
                 "without --candidates"},
        self.low_bits);
    option(
        {.name = "low-group-size", .help = "And their group size"},
        self.low_group_size);
    option(
        {.name = "high-bits",
         .help = "Bits of what is most sensitive, without --candidates"},
        self.high_bits);
    option(
        {.name = "high-group-size", .help = "And their group size"},
        self.high_group_size);
    option(
        {.name = "candidates",
         .help = "Choose among these instead of low and high, bits:group_size "
                 "or bf16 (as it is): 3:64,4:64,4:32,6:64,8:64,bf16"},
        self.candidates);
    option(
        {.name = "sensitivities",
         .help = "Read sensitivities from this JSON file, mlx-lm's or ours, "
                 "instead of measuring them"},
        self.sensitivities);
    option(
        {.name = "sensitivities-out",
         .help = "Write what was measured to this JSON file, as soon as it is "
                 "(default: sensitivities.json in the output folder)",
         .affects_result = false},
        self.sensitivities_out);
    option(
        {.name = "then",
         .help = "Round by this method, on the same text, rather than to "
                 "nearest",
         .choices = {"", "gptq"}},
        self.then);
    option(
        {.name = "report-ppl",
         .help = "Report the perplexity of the model before and after",
         .affects_result = false},
        self.report_ppl);
    option(
        {.name = "grad-checkpoint",
         .help = "Taken for mlx-lm's sake: blocks are always run again on the "
                 "way back",
         .affects_result = false},
        self.grad_checkpoint);
    option(
        {.name = "accumulation-dtype",
         .help = "Taken for mlx-lm's sake: gradients are always summed in "
                 "float32",
         .choices = {"float32", "bfloat16"},
         .affects_result = false},
        self.accumulation_dtype);
    option(
        {.name = "batch-size",
         .help = "Sequences that go through a block together; 0: as fits the "
                 "caches"},
        self.batch_size);
    option(
        {.name = "force",
         .help = "Replace an output folder and files that exist, and start "
                 "afresh rather than go on with an unfinished run",
         .affects_result = false},
        self.force);
    option(
        {.name = "report",
         .help = "Write figures of each module to this JSON file",
         .affects_result = false},
        self.report);
  }
};

struct DynamicModule {
  std::string path;
  std::optional<QuantSpec> spec;  // absent: stays in floats
  double sensitivity = 0;         // mlx-lm's: alignment a million weights
  double loss = 0;                // estimated to be added by this choice
};

struct DynamicReport {
  std::string output;
  std::string data;
  DataUse data_use;  // rows and files, used and left out
  int64_t tokens = 0;
  /// KL to the full model with everything at low; absent: not measured.
  std::optional<double> low_kl;
  std::string sensitivities;  // the file
  std::vector<DynamicModule> modules;
  std::optional<double> perplexity_before, perplexity_after;
  int64_t parameters = 0;
  int64_t bytes_in = 0;
  int64_t bytes_out = 0;
  double bits_per_weight = 0;
  double pass_seconds = 0;  // the pass alone
  Json then;                // what --then reports; null: rounded to nearest
  double seconds = 0;
  int64_t peak_rss = 0;
  std::vector<std::string> notes;
};

/// Measures what rounding each module costs (measure_sensitivities), or reads
/// it, then gives each the width by which the least is lost within the target,
/// rounds to nearest, or as options.then says, and writes options.mlx_path.
/// Sensitivities that were measured go to options.sensitivities_out, else to
/// sensitivities.json in the output folder: mlx-lm's own pairs without
/// --candidates, else an object with all figures. mlx-lm writes them to the
/// current folder, where nobody asked for them. Errors as convert's,
/// load_data's and OutputFile's; invalid_argument for a target that the
/// candidates can't meet, which is found before anything is measured.
DynamicReport dynamic_quant(
    const fs::path& model_folder,
    const DynamicQuantOptions& options,
    const FetchDatasetFn& fetch_dataset,
    const ProgressFn& progress = {});

Json to_json(const DynamicReport& report);

}  // namespace pennyweight
