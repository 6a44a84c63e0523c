#pragma once

#include <string>
#include <vector>

#include "core/progress.h"
#include "method/dwq/options.h"
#include "method/dwq/targets.h"
#include "model/model.h"
#include "pass/process_group.h"
#include "text/load_data.h"

namespace pennyweight {

/// What a run of dwq trains on and is measured by.
struct DwqData {
  DistillSplit train{"train", {}, {}};
  DistillSplit valid{"valid", {}, {}};
  std::string source;  // in words
  DataUse use;
  std::vector<std::string> notes;
};

/// Cuts the sequences of a split into batches of `batch_size`, as mlx_lm's dwq
/// does; how many fill none and are left out. invalid_argument for tokens
/// outside [0, vocab).
size_t make_dwq_batches(
    DistillSplit& split,
    int64_t vocab,
    size_t batch_size,
    size_t max_length,
    uint32_t seed);

/// Loads the text and divides it as mlx_lm's dwq does, so that targets may be
/// shared with it: rows by numpy's permutation of --seed, --num-samples to
/// train on and the next 32 held out, in its batches. Of less text a ninth is
/// held out. Errors as load_data's; invalid_argument for text of fewer than
/// two sequences, of tokens that the teacher has not, or of batches too small
/// for the processes.
DwqData load_dwq_data(
    const Model& teacher,
    const fs::path& teacher_folder,
    const DwqOptions& options,
    const ProcessGroup& ranks,
    const FetchDatasetFn& fetch_dataset,
    const ProgressFn& progress);

}  // namespace pennyweight
