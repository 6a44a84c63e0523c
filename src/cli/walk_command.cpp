#include "cli/walk_command.h"

#include "checkpoint/hub.h"
#include "core/error.h"
#include "run/kernel_report.h"

namespace pennyweight::cli {

namespace {

// Held-out error of the last block by variant, and what was kept how often.
std::string describe_gate(const WalkReport& report) {
  std::map<std::string, int> kept;
  for (const Json& block : report.blocks) {
    ++kept[block.at("kept").get<std::string>()];
  }
  std::string text;
  for (const auto& [name, count] : kept) {
    text += (text.empty() ? "" : ", ") + name + ": " + std::to_string(count);
  }
  text = "blocks by what was kept: " + text + "\n";
  const Json& last = report.blocks.back();
  if (auto errors = last.find("held_out_error"); errors != last.end()) {
    text += "held-out error after the last block: " +
        fixed(100 *
                  errors->at(last.at("kept").get<std::string>()).get<double>(),
              3) +
        "%, rounded to nearest in its place " +
        fixed(100 * errors->at("round to nearest").get<double>(), 3) + "%\n";
  }
  return text;
}

std::string describe(const WalkReport& report) {
  std::string text = "data: " + shown(report.data) + "; " +
      std::to_string(report.tokens) + " tokens, " +
      std::to_string(report.held_out_tokens) + " more held out\n";
  text += describe_gate(report);
  for (const auto& kept : report.kept) {
    text += "kept in floats: " + shown(kept) + "\n";
  }
  text += fixed(report.bits_per_weight, 3) +
      " bits a weight: " + human_bytes(double(report.bytes_in)) + " -> " +
      human_bytes(double(report.bytes_out)) + ", in " +
      fixed(report.seconds, 1) + " s, peak memory " +
      human_bytes(double(report.peak_rss)) + "\n";
  return text + "written to " + shown(report.output) + "\n";
}

}  // namespace

void require_one_process(const std::string& command) {
  if (Ranks::world().size() > 1) {
    throw Error(
        ErrorCode::not_supported,
        command,
        "it runs as one process; leave out the launcher");
  }
}

void run_walk(
    const WalkOptions& options,
    const RunMethod& method,
    Console& console) {
  const Ranks& ranks = Ranks::world();
  // One of them speaks for all, and fetches.
  auto progress = ranks.first()
      ? console.progress()
      : [](const ProgressEvent&) { return !interrupted(); };
  std::optional<OutputFile> file;
  if (ranks.first()) {
    file = console.output_file(options.report, options.force, "--report");
  }
  fs::path folder;
  ranks.first_then_others(
      [&] { folder = resolve_model(options.model, progress); });
  auto fetch = [&progress](const std::string& id) {
    return resolve_dataset(id, progress);
  };
  auto report = method(folder, fetch, ranks, progress);
  if (!ranks.first()) {
    return;
  }
  auto json = to_json(report);
  json["kernels"] = kernels_json();
  if (file) {
    file->write(json_text(json));
  }
  console.result(json, describe(report));
}

}  // namespace pennyweight::cli
