#pragma once

#include "run/options.h"
#include "text/load_data.h"

namespace pennyweight {

/// What every command that walks through a model's blocks takes.
struct WalkOptions : SourceOptions,
                     OutputOptions,
                     BatchOptions,
                     ResumeOptions,
                     LimitOptions {
  LoadDataOptions data;
  bool fit_embed = true;
  bool part = false;  // of a larger run, see ResumePolicy; no option

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    SourceOptions::visit(self, option);
    OutputOptions::visit(self, option);
    LoadDataOptions::visit(self.data, option);
    option(
        {.name = "fit-embed",
         .help = "Fit embedding and head to the text too, rather than round "
                 "them to nearest"},
        self.fit_embed);
    BatchOptions::visit(self, option);
    LimitOptions::visit(self, option);
    ResumeOptions::visit(self, option);
  }
};

}  // namespace pennyweight
