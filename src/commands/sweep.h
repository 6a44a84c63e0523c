#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "commands/quantize/quantize.h"

namespace pennyweight {

struct SweepOptions {
  PlanOptions plan;
  std::string bpw = "2.5:6:0.5";
  std::string output = "sweep";
  bool estimate = false;
  bool keep = false;
  bool resume = false;
  bool force = false;

  SweepOptions() {
    plan.effort = "fast";
  }

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    PlanOptions::visit(self.plan, option);
    option(
        {.name = "bpw",
         .help = "Bits a weight: first:last:step, or a list such as 3,4,4.5"},
        self.bpw);
    option(
        {.name = "output",
         .help = "Folder to write: sweep.json, sweep.csv and report.html; must "
                 "not exist unless --force",
         .short_name = "o",
         .affects_result = false},
        self.output);
    option(
        {.name = "estimate",
         .help = "Only estimate each KL; models are not made"},
        self.estimate);
    option(
        {.name = "keep-models",
         .help = "Keep the model of each size in the output folder"},
        self.keep);
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
  }
};

struct SweepPoint {
  double asked = 0;
  double bits_per_weight = 0;
  int64_t bytes = 0;
  double estimated = 0;        // KL, by costs
  std::optional<double> kl{};  // on the gate's text, rounded by GPTQ
  double seconds = 0;
};

struct SweepReport {
  std::string output;
  std::string data;
  std::vector<SweepPoint> points;
  double cost_seconds = 0;
  double seconds = 0;
  int64_t peak_rss = 0;
  std::vector<std::string> notes;
};

Json to_json(const SweepReport& report);

/// "2.5:6:0.25" or "3,4,4.5" to sizes; invalid_argument for anything else,
/// for more than 200 of them, and for what is not above 0 and at most 32.
std::vector<double> parse_sizes(const std::string& text);

/// The frontier of size against KL: widths chosen from one table of costs for
/// each size, rounded by GPTQ and measured. Sizes below what the candidates
/// allow are left out, with a note. Errors as quantize_model's.
SweepReport sweep(
    const fs::path& model_folder,
    const SweepOptions& options,
    const FetchDatasetFn& fetch_dataset,
    const ProgressFn& progress = {});

}  // namespace pennyweight
