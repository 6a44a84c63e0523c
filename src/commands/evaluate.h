#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/options.h"
#include "core/progress.h"
#include "eval/metrics.h"
#include "text/load_data.h"

namespace pennyweight {

namespace fs = std::filesystem;

struct EvaluateOptions {
  std::string model;
  std::optional<std::string> reference;
  LoadDataOptions data;
  int batch_size = 0;
  std::optional<std::string> dtype;
  std::string assume_family;

  EvaluateOptions() {
    data.num_samples = 256;  // as mlx_lm.perplexity
  }

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "model",
         .help = "Model folder, or a hub id such as org/name[@revision]; "
                 "plain or MLX-quantized",
         .positional = true,
         .required = true},
        self.model);
    option(
        {.name = "reference",
         .help = "The full-precision model, for KL and top-1 agreement"},
        self.reference);
    option(
        {.name = "assume-family",
         .help = "Read a model of an unknown model_type as this family's"},
        self.assume_family);
    LoadDataOptions::visit(self.data, option);
    option(
        {.name = "batch-size",
         .help = "Sequences a batch; 0: as fits the caches",
         .affects_result = false},
        self.batch_size);
    option(
        {.name = "dtype",
         .help = "Type that matrices run in (default: the model's own)",
         .choices = {"float16", "bfloat16", "float32"}},
        self.dtype);
  }
};

struct EvaluateReport {
  std::string model;
  std::string reference;  // empty: none
  std::string dtype;      // that matrices ran in
  std::string data;       // where the text is from, in words
  int64_t sources = 0;
  DataUse data_use;  // rows and files, used and left out
  Evaluation figures;
  int64_t parameters = 0;  // of the model, as if not quantized
  int64_t bytes = 0;
  double bits_per_weight = 0;
  int64_t reference_bytes = 0;
  double seconds = 0;  // of scoring, without loading the text
  double tokens_per_second = 0;
  int64_t peak_rss = 0;  // bytes, of the whole process so far
  std::vector<std::string> notes;
};

/// Scores the model in `model_folder`, beside the one in `reference_folder`
/// if any, on text that options.data describes, tokenized by the model's own
/// tokenizer. Errors as open_model's, load_data's and evaluate()'s.
EvaluateReport evaluate_model(
    const fs::path& model_folder,
    const std::optional<fs::path>& reference_folder,
    const EvaluateOptions& options,
    const FetchDatasetFn& fetch_dataset,
    const ProgressFn& progress = {});

Json to_json(const EvaluateReport& report);

}  // namespace pennyweight
