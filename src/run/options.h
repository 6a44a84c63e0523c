#pragma once

#include <optional>
#include <string>

#include "core/options.h"

/// Parts of which commands' options are made.
namespace pennyweight {

/// The model that is read.
struct SourceOptions {
  std::string model;
  std::string assume_family;

  /// `positional`: whether the model may be given without its flag.
  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option, bool positional = false) {
    option(
        {.name = "model",
         .help = "Model folder, or a hub id such as org/name[@revision]",
         .short_name = "m",
         .aliases = {"hf-path"},
         .positional = positional,
         .required = true,
         .affects_result = false,  // its contents do
         .takes = "MODEL"},
        self.model);
    option(
        {.name = "assume-family",
         .help = "Read a model of an unknown model_type as this family's",
         .advanced = true},
        self.assume_family);
  }
};

/// How much goes through a block at a time.
struct BatchOptions {
  int batch_size = 0;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "batch-size",
         .help = "Sequences that go through a block together; 0: as fits the "
                 "caches",
         .advanced = true},
        self.batch_size);
  }
};

/// The folder that is written.
struct OutputOptions {
  std::string mlx_path = "mlx_model";
  bool force = false;
  bool drop_mtp = false;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "mlx-path",
         .help = "Folder to write; must not exist unless --force",
         .short_name = "o",
         .aliases = {"output"},
         .affects_result = false,
         .takes = "FOLDER"},
        self.mlx_path);
    option(
        {.name = "force",
         .help = "Replace an output folder and files that exist; start afresh "
                 "rather than go on with an unfinished run, unless with "
                 "--resume",
         .affects_result = false},
        self.force);
    option(
        {.name = "drop-mtp",
         .help = "Leave out the heads that predict further tokens, which are "
                 "otherwise carried in mtp.safetensors",
         .affects_result = false,
         .advanced = true},
        self.drop_mtp);
  }
};

/// Of commands that go on with an unfinished run.
struct ResumeOptions {
  bool resume = false;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "resume",
         .help = "Insist on going on with an unfinished run (one with the same "
                 "settings is gone on with anyway)",
         .affects_result = false,
         .advanced = true},
        self.resume);
  }
};

struct LimitOptions {
  std::optional<std::string> memory_limit;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "memory-limit",
         .help = "Most memory to use, such as 4GB; activations past it go to "
                 "a scratch file (default: half of the machine's)",
         .affects_result = false},
        self.memory_limit);
  }
};

}  // namespace pennyweight
