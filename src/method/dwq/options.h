#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/options.h"
#include "method/grad_checkpoint.h"

namespace pennyweight {

/// Flags and defaults are mlx_lm.dwq's, and what that lacks.
struct DwqOptions : GradCheckpointOptions {
  std::optional<std::string> quantized_model;
  int bits = 4;
  int group_size = 64;
  int num_samples = 2048;
  int max_seq_length = 1025;
  uint64_t seed = 123;
  std::optional<double> learning_rate;
  int batch_size = 4;
  std::string data_path;
  std::optional<std::string> target_dir;
  bool targets_only = false;
  bool pipeline = false;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "quantized-model",
         .help = "The quantized model to improve, of any method (default: the "
                 "full one rounded to --bits)",
         .affects_result = false,
         .takes = "MODEL"},
        self.quantized_model);
    option(
        {.name = "bits", .help = "Bits a weight, without --quantized-model"},
        self.bits);
    option(
        {.name = "group-size",
         .help = "Weights a group, without --quantized-model"},
        self.group_size);
    option(
        {.name = "num-samples",
         .help = "Sequences to train on, each once; 32 more are held out"},
        self.num_samples);
    option(
        {.name = "max-seq-length", .help = "Tokens a sequence at most"},
        self.max_seq_length);
    option(
        {.name = "seed", .help = "Seed of the choice and order of sequences"},
        self.seed);
    option(
        {.name = "learning-rate",
         .help = "Adam's, at its highest (default: chosen by a short trial)"},
        self.learning_rate);
    option({.name = "batch-size", .help = "Sequences a step"}, self.batch_size);
    option(
        {.name = "data-path",
         .help = "Text: a file or folder of text, .json, .jsonl or .parquet "
                 "rows, a hub data set org/name, or self (sampled from the "
                 "model). Without it: mlx-lm's calibration text, else self",
         .takes = "DATA"},
        self.data_path);
    GradCheckpointOptions::visit(self, option);
    option(
        {.name = "target-dir",
         .help = "Folder of the full model's 1,024 largest logits for each "
                 "batch, mlx-lm's or ours: read where it has some, else "
                 "written first. Without it the full model runs beside"},
        self.target_dir);
    option(
        {.name = "targets-only",
         .help = "Write --target-dir and stop",
         .affects_result = false},
        self.targets_only);
    option(
        {.name = "pipeline",
         .help = "Of several processes give each a part of the blocks, rather "
                 "than a part of each batch"},
        self.pipeline);
  }
};

}  // namespace pennyweight
