#include "commands/dwq.h"

#include <cstdio>

namespace pennyweight {

std::string log_csv(const TrainResult& training) {
  std::string text =
      "step,tokens,learning_rate,loss,gradient_norm,held_out_kl\n";
  char line[160];
  std::snprintf(line, sizeof(line), "0,0,,,,%.6g\n", training.start);
  text += line;
  for (const auto& point : training.curve) {
    std::snprintf(
        line,
        sizeof(line),
        "%lld,%lld,%.6g,%.6g,%.6g,",
        static_cast<long long>(point.step),
        static_cast<long long>(point.tokens),
        point.rate,
        point.loss,
        point.norm);
    text += line;
    if (point.held_out) {
      std::snprintf(line, sizeof(line), "%.6g", *point.held_out);
      text += line;
    }
    text += "\n";
  }
  return text;
}

Json to_json(const DwqReport& report) {
  Json json{
      {"output", report.output},
      {"targets", report.targets},
      {"data", report.data},
      {"data_use", to_json(report.data_use)},
      {"train_sequences", report.train_sequences},
      {"held_out_sequences", report.held_out_sequences},
      {"trained_modules", report.trained_modules},
      {"trained_parameters", report.trained_parameters},
      {"untrained", report.untrained}};
  if (report.trained) {
    const auto& training = report.training;
    json["learning_rate"] = training.rate;
    json["trial"] = training.trial;
    json["start_kl"] = training.start;
    json["best_kl"] = training.best;
    json["best_step"] = training.best_step;
    json["resumed_steps"] = training.resumed_steps;
    json["tokens_per_second"] = training.seconds > 0
        ? static_cast<double>(training.tokens) / training.seconds
        : 0.0;
    json["curve"] = to_json(training.curve);
  }
  json["parameters"] = report.parameters;
  json["bytes"] = report.bytes_out;
  json["bits_per_weight"] = report.bits_per_weight;
  json["seconds"] = report.seconds;
  json["peak_rss"] = report.peak_rss;
  json["processes"] = report.ranks;
  json["notes"] = report.notes;
  return json;
}

}  // namespace pennyweight
