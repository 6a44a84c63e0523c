#include "commands/dynamic_quant.h"

#include "checkpoint/hub.h"
#include "cli/command.h"

namespace pennyweight::cli {

namespace {

// How many modules, and of how many weights they are made, by width.
std::string describe(const DynamicReport& report) {
  std::map<std::string, int> counts;
  for (const auto& module : report.modules) {
    ++counts
        [module.spec ? std::to_string(module.spec->bits) + " bits, groups of " +
                 std::to_string(module.spec->group_size)
                     : "floats"];
  }
  std::string text = "modules by width: ";
  for (const auto& [name, count] : counts) {
    text += (name == counts.begin()->first ? "" : "; ") + name + ": " +
        std::to_string(count);
  }
  text += "\n";
  if (report.low_kl) {
    text += "data: " + shown(report.data) + "; " +
        std::to_string(report.tokens) +
        " tokens; KL with all modules at the low width " +
        fixed(*report.low_kl, 4) + "\nsensitivities written to " +
        shown(report.sensitivities) + "\n";
  }
  if (report.perplexity_before) {
    text += "perplexity " + fixed(*report.perplexity_before, 3) + " -> " +
        fixed(*report.perplexity_after, 3) + "\n";
  }
  text += fixed(report.bits_per_weight, 3) +
      " bits a weight: " + human_bytes(double(report.bytes_in)) + " -> " +
      human_bytes(double(report.bytes_out)) + ", in " +
      fixed(report.seconds, 1) + " s, peak memory " +
      human_bytes(double(report.peak_rss)) + "\n";
  return text + "written to " + shown(report.output) + "\n";
}

}  // namespace

Command dynamic_quant_command() {
  return {
      "dynamic-quant",
      "Quantize to a size by widths chosen from each module's sensitivity",
      "  pennyweight dynamic-quant --model Qwen/Qwen3-0.6B --mlx-path out "
      "--target-bpw 4.75\n"
      "  pennyweight dynamic-quant --model folder --mlx-path out --target-size "
      "400MB\n    --candidates 3:64,4:64,4:32,5:64,6:64,8:64,bf16 --then "
      "gptq\n",
      [](CLI::App& app) {
        auto options = std::make_shared<DynamicQuantOptions>();
        bind_flags(app, *options);
        return [options](Console& console) {
          require_one_process("dynamic-quant");
          const auto file =
              console.output_file(options->report, options->force, "--report");
          console.output_file(
              options->sensitivities_out.value_or(""),
              options->force,
              "--sensitivities-out");
          const auto progress = console.progress();
          auto folder = resolve_model(options->model, progress);
          auto report = dynamic_quant(
              folder,
              *options,
              [&](const std::string& id) {
                return resolve_dataset(id, progress);
              },
              progress);
          if (file) {
            file->write(json_text(to_json(report)));
          }
          console.result(to_json(report), describe(report));
        };
      }};
}

}  // namespace pennyweight::cli
