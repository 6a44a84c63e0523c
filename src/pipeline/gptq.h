#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/options.h"
#include "core/progress.h"
#include "method/gptq.h"
#include "pipeline/memory_plan.h"
#include "pipeline/ranks.h"
#include "text/load_data.h"

namespace pennyweight {

namespace fs = std::filesystem;

/// Flags and defaults are mlx_lm.gptq's, and what that lacks.
struct GptqRunOptions {
  std::string model;
  std::string mlx_path = "mlx_model";
  std::optional<int> bits;
  std::optional<int> group_size;
  int fallback_bits = 6;
  int fallback_group_size = 64;
  std::optional<int> embed_bits;
  std::string mode = "affine";
  LoadDataOptions data;
  int batch_size = 0;
  GptqOptions gptq;
  std::optional<std::string> memory_limit;
  bool resume = false;
  bool force = false;
  std::string report;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "model",
         .help = "Model folder, or a hub id such as org/name[@revision]",
         .aliases = {"hf-path"},
         .required = true,
         .affects_result = false},  // its contents do
        self.model);
    option(
        {.name = "mlx-path",
         .help = "Folder to write; must not exist unless --force",
         .affects_result = false},
        self.mlx_path);
    option(
        {.name = "bits",
         .help = "Bits a weight of the blocks' linears: 2, 3, 4, 5, 6 or 8 "
                 "(default 4; mxfp8: 8)"},
        self.bits);
    option(
        {.name = "group-size",
         .help = "Weights a group: 32, 64 or 128 (default 64; mxfp4 and mxfp8: "
                 "32, nvfp4: 16)"},
        self.group_size);
    option(
        {.name = "fallback-bits",
         .help = "Bits of what GPTQ is not done for: embedding and head"},
        self.fallback_bits);
    option(
        {.name = "fallback-group-size", .help = "And their group size"},
        self.fallback_group_size);
    option(
        {.name = "embed-bits",
         .help = "Bits of the embedding (default: --fallback-bits)"},
        self.embed_bits);
    option(
        {.name = "mode",
         .help = "Quantization mode of the blocks' linears",
         .choices = {"affine", "mxfp4", "mxfp8", "nvfp4"}},
        self.mode);
    LoadDataOptions::visit(self.data, option);
    option(
        {.name = "batch-size",
         .help = "Sequences that go through a block together; 0: as fits the "
                 "caches"},
        self.batch_size);
    GptqOptions::visit(self.gptq, option);
    option(
        {.name = "memory-limit",
         .help = "Most memory to use, such as 4GB; activations past it go to "
                 "a scratch file (default: half of the machine's)",
         .affects_result = false},
        self.memory_limit);
    option(
        {.name = "resume",
         .help = "Insist on going on with an unfinished run (one with the same "
                 "settings is gone on with anyway)",
         .affects_result = false},
        self.resume);
    option(
        {.name = "force",
         .help = "Replace an output folder that exists; drop an unfinished run "
                 "with other settings",
         .affects_result = false},
        self.force);
    option(
        {.name = "report",
         .help = "Write figures of each block to this JSON file",
         .affects_result = false},
        self.report);
  }
};

struct GptqReport {
  std::string output;
  Json settings;
  std::string data;  // where the text is from, in words
  int64_t tokens = 0;
  int64_t held_out_tokens = 0;
  MemoryPlan plan;
  std::vector<Json> blocks;  // see BlockOutcome
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

/// Quantizes the checkpoint in `model_folder` (what options.model stands for)
/// into options.mlx_path, going on with an unfinished run of equal settings.
/// On ranks but the first the report has no output figures. Errors as
/// open_model's and load_data's; invalid_argument for options that contradict
/// each other or the model, for a memory limit that can't be kept and for an
/// unfinished run of other settings.
GptqReport gptq(
    const fs::path& model_folder,
    const GptqRunOptions& options,
    const FetchDatasetFn& fetch_dataset,
    const Ranks& ranks,
    const ProgressFn& progress = {});

Json to_json(const GptqReport& report);

}  // namespace pennyweight
