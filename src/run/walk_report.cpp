#include "run/method_run.h"

namespace pennyweight {

Json to_json(const WalkReport& report) {
  Json json{
      {"output", report.output},
      {"settings", report.settings},
      {"data", report.data},
      {"tokens", report.tokens},
      {"held_out_tokens", report.held_out_tokens},
      {"plan",
       {{"peak", report.plan.peak()},
        {"activations_in_memory", report.plan.in_memory},
        {"scratch", report.plan.scratch},
        {"disk", report.plan.disk}}},
      {"outer", report.outer},
      {"blocks", report.blocks},
      {"resumed_blocks", report.resumed_blocks},
      {"kept", report.kept},
      {"parameters", report.parameters},
      {"bytes_in", report.bytes_in},
      {"bytes", report.bytes_out},
      {"bits_per_weight", report.bits_per_weight},
      {"seconds", report.seconds},
      {"peak_rss", report.peak_rss},
      {"processes", report.ranks},
      {"notes", report.notes}};
  if (report.data_use.files > 0) {  // else the text came from another run
    json["data_use"] = to_json(report.data_use);
  }
  return json;
}

}  // namespace pennyweight
