#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "core/options.h"
#include "core/progress.h"
#include "text/data_use.h"
#include "text/tokenizer.h"

namespace pennyweight {

struct LoadDataOptions {
  /// A file, a folder of text files, a hub data set `org/name`, `self`, or
  /// empty for the default calibration text.
  std::string data_path;
  /// -1: all there are.
  int num_samples = -1;
  int sequence_length = 512;
  uint64_t seed = 123;
  /// Where set, not num_samples and the seed choose but this: from the number
  /// of sequences that there are to the indices of those to use, in order.
  std::function<std::vector<size_t>(size_t count)> choose_from = {};
  /// False where the caller gathers several paths, and asks require_half of
  /// all that they gave: one without any text gives no sequences then, and no
  /// error.
  bool judged = true;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "data-path",
         .help = "Text: a file or folder of text, .json, .jsonl or .parquet "
                 "rows, a hub data set org/name, or self (sampled from the "
                 "model). Without it: mlx-lm's calibration text, else self",
         .takes = "DATA"},
        self.data_path);
    option(
        {.name = "num-samples",
         .help = "Sequences to use, chosen by --seed; -1 for all"},
        self.num_samples);
    option(
        {.name = "sequence-length", .help = "Tokens a sequence"},
        self.sequence_length);
    option(
        {.name = "seed", .help = "Seed of the choice", .advanced = true},
        self.seed);
  }
};

class TextReader;  // text/text_reader.h

struct TokenData {
  /// Plain text: all of sequence_length tokens. Chat rows: that many at most.
  std::vector<std::vector<int32_t>> sequences;
  /// Empty, or a flag a token: whether it counts as a target.
  std::vector<std::vector<uint8_t>> masks;
  int sequence_length = 0;
  int64_t tokens = 0;
  /// Distinct files, rows or sampled texts that the sequences come from.
  int64_t sources = 0;
  /// In words, for a report.
  std::string source;
  /// What gave text, before any choice by num_samples, and what was left out.
  DataUse use;
  /// Each was also reported as a warning event.
  std::vector<std::string> warnings;
};

using SampleSelfFn = std::function<std::vector<
    std::vector<int32_t>>(int num_samples, int sequence_length, uint64_t seed)>;
/// A hub data set's id to a local folder of its files.
using FetchDatasetFn =
    std::function<std::filesystem::path(const std::string& id)>;

/// Token sequences for calibration and evaluation. Plain text (and rows with
/// `text`) as mlx-lm's load_data: each text tokenized whole, cut into
/// sequences that don't overlap, the rest dropped; a folder's files are cut
/// one by one; rows of one file follow each other in its sequences, each
/// tokenized by itself. Chat rows are rendered by the model's template and
/// truncated. num_samples of them are chosen by the seed, the same on every
/// machine, and kept in that order. A folder that is a clone of a hub data set
/// is read as the data set is by its id.
///
/// Text is read and tokenized in pieces: memory grows with the sequences that
/// are chosen, not with the text.
///
/// Rows, chats and a folder's files that can't be used are left out, counted
/// in `use` and named in a warning.
///
/// Errors: not_found (path), corrupt (a single file that isn't UTF-8, with the
/// byte, or no text at all; less than half of the rows left), not_supported (a
/// single compressed file), invalid_argument (no text, or too little for one
/// sequence; options out of range), what the callbacks throw. Fewer sequences
/// than asked for, and every fallback, is a warning.
TokenData load_data(
    TextReader& reader,
    const LoadDataOptions& options,
    const SampleSelfFn& sample_self,
    const FetchDatasetFn& fetch_dataset,
    const ProgressFn& progress = {});

}  // namespace pennyweight
