#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/progress.h"
#include "method/dwq/data.h"
#include "method/dwq/options.h"
#include "method/dwq/train.h"
#include "pass/ranks.h"
#include "text/load_data.h"

namespace pennyweight {

namespace fs = std::filesystem;

struct DwqReport {
  std::string output;   // empty: targets only
  std::string targets;  // folder; empty: the full model itself
  std::string data;
  DataUse data_use;  // rows and files, used and left out
  int64_t train_sequences = 0;
  int64_t held_out_sequences = 0;
  int64_t trained_modules = 0;
  int64_t trained_parameters = 0;      // scales and biases
  std::vector<std::string> untrained;  // with the reason
  bool trained = false;                // false: there is nothing to train
  TrainResult training;
  int64_t parameters = 0;
  int64_t bytes_out = 0;
  double bits_per_weight = 0;
  double seconds = 0;
  int64_t peak_rss = 0;
  int ranks = 1;
  std::vector<std::string> notes;
};

/// Trains scales and biases of a quantized model towards the full-precision
/// one in `model_folder` (mlx_lm's dwq) and writes options.mlx_path with
/// what was best on held-out text, the start itself where nothing was better.
/// `student_folder` is what options.quantized_model stands for. Steps are in
/// the output's dwq_log.csv. Errors as convert's, load_data's and train_dwq's;
/// invalid_argument for a student that is not quantized or of another
/// vocabulary.
DwqReport dwq(
    const fs::path& model_folder,
    const std::optional<fs::path>& student_folder,
    const DwqOptions& options,
    const FetchDatasetFn& fetch_dataset,
    const Ranks& ranks,
    const ProgressFn& progress = {});

/// As dwq(), on text that is divided and batched already.
DwqReport dwq_on(
    const fs::path& model_folder,
    const std::optional<fs::path>& student_folder,
    const DwqOptions& options,
    DwqData data,
    const Ranks& ranks,
    const ProgressFn& progress = {});

Json to_json(const DwqReport& report);

/// Of the start and each step: step, tokens, learning_rate, loss,
/// gradient_norm and held_out_kl, empty where it was not measured.
std::string log_csv(const TrainResult& training);

}  // namespace pennyweight
