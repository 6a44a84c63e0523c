#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/options.h"

namespace pennyweight {

/// Flags and defaults are mlx_lm.dwq's, and what that lacks.
struct DwqOptions {
  std::string model;
  std::optional<std::string> quantized_model;
  std::string mlx_path = "mlx_model";
  std::string assume_family;
  int bits = 4;
  int group_size = 64;
  int num_samples = 2048;
  int max_seq_length = 1025;
  uint64_t seed = 123;
  std::optional<double> learning_rate;
  int batch_size = 4;
  std::string data_path;
  bool grad_checkpoint = false;
  std::optional<std::string> target_dir;
  bool targets_only = false;
  bool pipeline = false;
  bool resume = false;
  bool force = false;
  bool part = false;  // of a larger run, see ResumePolicy; no option
  std::string report;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "model",
         .help = "The full-precision model to learn from: a folder, or a hub "
                 "id such as org/name[@revision]",
         .short_name = "m",
         .required = true,
         .affects_result = false},  // its contents do
        self.model);
    option(
        {.name = "quantized-model",
         .help = "The quantized model to improve, of any method (default: the "
                 "full one rounded to --bits)",
         .affects_result = false},
        self.quantized_model);
    option(
        {.name = "mlx-path",
         .help = "Folder to write; must not exist unless --force",
         .affects_result = false},
        self.mlx_path);
    option(
        {.name = "assume-family",
         .help = "Read a model of an unknown model_type as this family's"},
        self.assume_family);
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
                 "model). Without it: mlx-lm's calibration text, else self"},
        self.data_path);
    option(
        {.name = "grad-checkpoint",
         .help = "Taken for mlx-lm's sake: blocks are always run again on the "
                 "way back",
         .affects_result = false},
        self.grad_checkpoint);
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
         .help = "Write the figures of each step to this JSON file",
         .affects_result = false},
        self.report);
  }
};

}  // namespace pennyweight
