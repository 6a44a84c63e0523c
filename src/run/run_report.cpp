#include "run/run_report.h"

#include "core/error.h"
#include "core/json.h"
#include "core/text.h"

namespace pennyweight {

Json to_json(const RunReport& report) {
  Json json{{"output", report.output}};
  if (!report.data.empty()) {
    json["data"] = report.data;
  }
  if (report.data_use) {
    json["data_use"] = to_json(*report.data_use);
  }
  json.update(report.figures);
  if (report.parameters > 0) {
    json["parameters"] = report.parameters;
  }
  if (report.bytes_in > 0) {
    json["bytes_in"] = report.bytes_in;
  }
  if (!report.packed_source.is_null()) {
    json["packed_source"] = report.packed_source;
  }
  if (!report.published_packed.is_null()) {
    json["published_packed"] = report.published_packed;
  }
  if (report.bytes_out > 0) {
    json["bytes"] = report.bytes_out;
    json["bits_per_weight"] = report.bits_per_weight;
  }
  if (report.mtp.tensors > 0) {
    json["mtp"] = {
        {"file", kMtpFile},
        {"tensors", report.mtp.tensors},
        {"bytes", report.mtp.bytes}};
    if (!report.mtp.packed_by.empty()) {
      json["mtp"]["packed_by"] = report.mtp.packed_by;
    }
  }
  json["seconds"] = report.seconds;
  json["peak_rss"] = report.peak_rss;
  json["processes"] = report.processes;
  json["notes"] = report.notes;
  return json;
}

std::string notes_text(const RunReport& report) {
  std::string text;
  for (const auto& note : report.notes) {
    text += "note: " + shown(note) + "\n";
  }
  return text;
}

std::string summary(const RunReport& report) {
  std::string text = report.text;
  std::string size;
  if (report.bytes_out > 0) {
    size = fixed(report.bits_per_weight, 3) + " bits a weight: " +
        (report.bytes_in > 0 ? human_bytes(double(report.bytes_in)) + " -> "
                             : "") +
        human_bytes(double(report.bytes_out)) + ", ";
  }
  if (report.seconds > 0) {
    text += size + "peak memory " + human_bytes(double(report.peak_rss)) +
        ", in " + fixed(report.seconds, 1) + " s\n";
  }
  if (!report.output.empty()) {
    if (report.mtp.tensors > 0) {
      text += std::string(kMtpFile) + ": " +
          std::to_string(report.mtp.tensors) +
          " tensors of heads that predict "
          "further tokens, " +
          human_bytes(double(report.mtp.bytes)) +
          (report.mtp.packed_by.empty()
               ? ""
               : ", packed by \"" + shown(report.mtp.packed_by) + "\"") +
          "\n";
    }
    text += "written to " + shown(report.output) + "\n";
  }
  return text;
}

}  // namespace pennyweight
