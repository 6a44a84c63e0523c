#include "commands/quantize/quantize.h"

#include "checkpoint/hub.h"
#include "cli/command.h"

namespace pennyweight::cli {

namespace {

std::string describe(const QuantizeReport& report) {
  std::vector<std::vector<std::string>> rows{
      {"stage", "KL", "seconds", "kept"}};
  for (const auto& stage : report.stages) {
    rows.push_back(
        {stage.name,
         fixed(stage.kl, 4),
         fixed(stage.seconds, 1),
         stage.kept ? "yes" : "no"});
  }
  return table(rows) + "\non text that no stage has seen: KL " +
      fixed(report.kl, 4) + ", perplexity " +
      fixed(report.perplexity_reference, 3) + " -> " +
      fixed(report.perplexity, 3) + ", same likeliest token " +
      fixed(100 * report.top1, 1) + "%\n" + fixed(report.bits_per_weight, 3) +
      " bits a weight: " + human_bytes(double(report.bytes_in)) + " -> " +
      human_bytes(double(report.bytes_out)) + ", in " +
      fixed(report.seconds, 1) + " s, peak memory " +
      human_bytes(double(report.peak_rss)) + "\nwritten to " +
      shown(report.output) +
      " (look at report.html; recipe.json does it again)\n";
}

}  // namespace

Command quantize_command() {
  return {
      "quantize",
      "Make the best model of a given size: widths and methods chosen for you",
      "  pennyweight quantize Qwen/Qwen3-0.6B -o qwen3-45 --target-bpw 4.5\n"
      "  pennyweight quantize folder -o out --target-size 400MB --effort best "
      "--time-limit 1h\n"
      "  pennyweight quantize folder -o again --recipe out/recipe.json\n",
      [](CLI::App& app) {
        auto options = std::make_shared<QuantizeOptions>();
        bind_flags(app, *options);
        return [options](Console& console) {
          require_one_process("quantize");
          const auto file =
              console.output_file(options->report, options->force, "--report");
          const auto progress = console.progress();
          const auto folder = resolve_model(options->plan.model, progress);
          const auto report = quantize_model(
              folder,
              *options,
              [&](const std::string& id) {
                return resolve_dataset(id, progress);
              },
              progress);
          const auto json = to_json(report);
          if (file) {
            file->write(json_text(json));
          }
          console.result(json, describe(report));
        };
      }};
}

}  // namespace pennyweight::cli
