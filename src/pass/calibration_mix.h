#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/json_fwd.h"
#include "core/options.h"
#include "core/progress.h"
#include "model/model.h"
#include "text/text_reader.h"

namespace pennyweight {

/// The text that `quantize` works with, and how it is weighed.
struct MixOptions {
  /// As LoadDataOptions; each file of a folder is a domain of its own, unless
  /// the folder is a clone of a hub data set.
  std::string data_path;
  std::string weights;
  int sequence_length = 512;
  uint64_t seed = 123;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "data-path",
         .help = "Text: a file or folder of text, .json, .jsonl or .parquet "
                 "rows, a hub data set org/name, or self (sampled from the "
                 "model). Each file of a folder is a domain. Without it: "
                 "mlx-lm's calibration text, else self",
         .takes = "DATA"},
        self.data_path);
    option(
        {.name = "mix",
         .help = "Weights of a folder's files by their names without ending, "
                 "such as web=3,code=2,chat=0; others weigh 1"},
        self.weights);
    option(
        {.name = "sequence-length", .help = "Tokens a sequence"},
        self.sequence_length);
    option(
        {.name = "seed", .help = "Seed of the choice", .advanced = true},
        self.seed);
  }
};

using TokenSequences = std::vector<std::vector<int32_t>>;

/// What came of one file, in sequences.
struct MixDomain {
  std::string name;
  double weight = 1;  // share of the mix, of 1
  int64_t fit = 0;
  int64_t gate = 0;
  int64_t report = 0;
};

/// Disjoint parts: stages are fitted to `fit`, kept or not by `gate`, and the
/// result is judged on `report`, which nothing else has seen. Domains follow
/// each other in turn, so that a beginning of `fit` is a mix as well.
struct CalibrationMix {
  TokenSequences fit;
  TokenSequences gate;
  TokenSequences report;
  std::vector<MixDomain> domains;
  DataUse use;  // what all files gave, and what was left out
  int sequence_length = 0;
  std::string source;  // in words
  std::vector<std::string> notes;
};

/// How many sequences each part is to have.
struct MixSize {
  int fit = 128;
  int gate = 16;
  int report = 16;
};

/// Errors as load_data's; invalid_argument for a weight that is none, a name
/// that no file has, or text of too few sequences to divide.
CalibrationMix load_mix(
    const Model& model,
    TextReader& reader,
    const MixOptions& options,
    const MixSize& size,
    const FetchDatasetFn& fetch_dataset,
    const ProgressFn& progress);

TokenSequences first_of(const TokenSequences& all, int count);

Json to_json(const CalibrationMix& mix);

}  // namespace pennyweight
