#pragma once

#include "commands/quantize/quantize.h"
#include "commands/quantize/stages.h"
#include "eval/metrics.h"

namespace pennyweight {

/// What the report of a run is made of; all outlive it.
struct Presentation {
  StageContext context;
  const RunReport& result;
  const std::vector<StageOutcome>& stages;
  const Evaluation& fidelity;  // on the report's text, which no stage has seen
  const QuantizeOptions& options;
  const PinnedWidths& pins;
  const WidthChooser* frontier;  // null: widths were not chosen by cost
};

/// What report.html shows; the schema is report_page's. Has both models go on
/// with beginnings of the report's text.
Json page_data(const Presentation& shown, const fs::path& quantized);

/// The figures of the run's report beside the page, and its text.
Json result_figures(const Presentation& shown, const Json& page);
std::string result_text(const Presentation& shown);

/// README.md, the model card.
void write_card(const Presentation& shown, const fs::path& folder);

/// "2 threads, AVX-512 ...", for reports.
std::string machine_name();

}  // namespace pennyweight
