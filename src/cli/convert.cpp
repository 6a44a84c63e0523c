#include "commands/convert.h"

#include "checkpoint/hub.h"
#include "cli/command.h"

namespace pennyweight::cli {

namespace {

std::string describe(const ConvertReport& report) {
  int64_t quantized = 0;
  std::string kept;
  for (const auto& module : report.modules) {
    quantized += module.spec.has_value();
    if (!module.reason.empty()) {
      kept += "  kept in " + report.dtype + ": " + shown(module.path) + " (" +
          module.reason + ")\n";
    }
  }
  std::string text = std::to_string(quantized) + " of " +
      std::to_string(report.modules.size()) +
      " modules quantized, the rest in " + report.dtype + "\n" + kept;
  text += fixed(report.bits_per_weight, 3) +
      " bits a weight: " + human_bytes(static_cast<double>(report.bytes_in)) +
      " -> " + human_bytes(static_cast<double>(report.bytes_out)) + ", in " +
      fixed(report.seconds, 1) + " s, peak memory " +
      human_bytes(static_cast<double>(report.peak_rss)) + "\n";
  return text + "written to " + shown(report.output) + "\n";
}

}  // namespace

Command convert_command() {
  return {
      "convert",
      "Quantize by rounding to nearest, as mlx_lm.convert does",
      "  pennyweight convert --model Qwen/Qwen3-0.6B --mlx-path out -q\n"
      "  pennyweight convert --model folder --mlx-path out -q --q-bits 3 "
      "--q-group-size 32\n"
      "  pennyweight convert --model folder --mlx-path out -q --q-mode mxfp4\n"
      "  pennyweight convert --model out --mlx-path plain --dequantize\n",
      [](CLI::App& app) {
        auto options = std::make_shared<ConvertOptions>();
        bind_flags(app, *options);
        return [options](Console& console) {
          auto folder = resolve_model(options->model, console.progress());
          auto report = convert(folder, *options, console.progress());
          console.result(to_json(report), describe(report));
        };
      }};
}

}  // namespace pennyweight::cli
