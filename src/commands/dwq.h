#pragma once

#include <filesystem>
#include <optional>

#include "method/dwq/data.h"
#include "method/dwq/options.h"
#include "run/options.h"
#include "run/pins/options.h"
#include "run/session.h"

namespace pennyweight {

struct DwqRunOptions : SourceOptions, OutputOptions, ResumeOptions {
  DwqOptions dwq;
  PinOptions pins;
  bool part = false;  // of a larger run, see ResumePolicy; no option

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    SourceOptions::visit(self, option);
    OutputOptions::visit(self, option);
    DwqOptions::visit(self.dwq, option);
    PinOptions::visit(self.pins, option);
    ResumeOptions::visit(self, option);
  }
};

/// Trains scales and biases of a quantized model towards the full-precision
/// `teacher` in `teacher_folder` (mlx_lm's dwq) and writes options.mlx_path
/// with what was best on held-out text, the start itself where nothing was
/// better. `student_folder` is what dwq.quantized_model stands for. Steps are
/// in the output's dwq_log.csv. Without `data` the text is loaded. Errors as
/// convert's, load_data's and train_dwq's; invalid_argument for a student that
/// is not quantized or of another vocabulary.
void dwq(
    Session& session,
    const Model& teacher,
    const fs::path& teacher_folder,
    const std::optional<fs::path>& student_folder,
    const DwqRunOptions& options,
    std::optional<DwqData> data = std::nullopt);

}  // namespace pennyweight
