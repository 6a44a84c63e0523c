#include "commands/dynamic_quant.h"

namespace pennyweight {

Json to_json(const DynamicReport& report) {
  Json json{
      {"output", report.output},
      {"data", report.data},
      {"data_use", to_json(report.data_use)},
      {"tokens", report.tokens},
      {"sensitivities", report.sensitivities},
      {"modules", Json::array()}};
  for (const auto& module : report.modules) {
    Json entry{{"path", module.path}};
    entry["quantization"] = module.spec ? to_json(*module.spec) : Json(false);
    entry["sensitivity"] = module.sensitivity;
    entry["estimated_loss"] = module.loss;
    json["modules"].push_back(entry);
  }
  if (report.low_kl) {
    json["low_kl"] = *report.low_kl;
    json["pass_seconds"] = report.pass_seconds;
  }
  if (report.perplexity_before) {
    json["perplexity_before"] = *report.perplexity_before;
    json["perplexity"] = *report.perplexity_after;
  }
  if (!report.then.is_null()) {
    json["then"] = report.then;
  }
  json["parameters"] = report.parameters;
  json["bytes_in"] = report.bytes_in;
  json["bytes"] = report.bytes_out;
  json["bits_per_weight"] = report.bits_per_weight;
  json["seconds"] = report.seconds;
  json["peak_rss"] = report.peak_rss;
  json["notes"] = report.notes;
  return json;
}

}  // namespace pennyweight
