#pragma once

#include <optional>
#include <string>

#include "core/options.h"
#include "text/load_data.h"

namespace pennyweight {

/// What every command that walks through a model's blocks takes.
struct WalkOptions {
  std::string model;
  std::string mlx_path = "mlx_model";
  LoadDataOptions data;
  std::string assume_family;
  bool fit_embed = true;
  int batch_size = 0;
  std::optional<std::string> memory_limit;
  bool resume = false;
  bool force = false;
  bool part = false;  // of a larger run, see ResumePolicy; no option
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
        {.name = "assume-family",
         .help = "Read a model of an unknown model_type as this family's"},
        self.assume_family);
    LoadDataOptions::visit(self.data, option);
    option(
        {.name = "fit-embed",
         .help = "Fit embedding and head to the text too, rather than round "
                 "them to nearest"},
        self.fit_embed);
    option(
        {.name = "batch-size",
         .help = "Sequences that go through a block together; 0: as fits the "
                 "caches"},
        self.batch_size);
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
         .help = "Replace an output folder and report files that exist; start "
                 "afresh rather than go on with an unfinished run, unless with "
                 "--resume",
         .affects_result = false},
        self.force);
    option(
        {.name = "report",
         .help = "Write figures of each block to this JSON file",
         .affects_result = false},
        self.report);
  }
};

}  // namespace pennyweight
