#include <memory>

#include "commands/quantize/quantize.h"
#include "core/error.h"
#include "core/options.h"

namespace pennyweight {

namespace {

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ErrorCode::invalid_argument, "quantize", what);
}

}  // namespace

Json to_json(const StageOutcome& outcome) {
  return {
      {"name", outcome.name},
      {"kl", outcome.kl},
      {"seconds", outcome.seconds},
      {"kept", outcome.kept},
      {"note", outcome.note},
      {"figures", outcome.figures}};
}

Json to_json(const QuantizeReport& report) {
  Json stages = Json::array();
  for (const auto& outcome : report.stages) {
    stages.push_back(to_json(outcome));
  }
  return {
      {"output", report.output},
      {"parameters", report.parameters},
      {"bytes_in", report.bytes_in},
      {"bytes", report.bytes_out},
      {"bits_per_weight", report.bits_per_weight},
      {"kl", report.kl},
      {"perplexity", report.perplexity},
      {"perplexity_reference", report.perplexity_reference},
      {"top1", report.top1},
      {"stages", stages},
      {"seconds", report.seconds},
      {"peak_rss", report.peak_rss},
      {"notes", report.notes},
      {"page", report.page}};
}

void refuse_beside_recipe(const QuantizeOptions& options) {
  const auto given = options_to_json(options, true);
  // Not on the stack, where g++ 12 takes its strings for uninitialized.
  const auto defaults = std::make_unique<QuantizeOptions>();
  const auto absent = options_to_json(*defaults, true);
  for (const auto& [name, value] : given.items()) {
    if (value != absent.at(name) && name != "recipe" && name != "data-path" &&
        name != "assume-family") {
      refuse("--recipe says what --" + name + " sets; leave that out");
    }
  }
}

}  // namespace pennyweight
