#include "commands/quantize/plan.h"
#include "checkpoint/hub.h"
#include "cli/command.h"

namespace pennyweight::cli {

namespace {

std::string describe(const QuantizePlanReport& report) {
  std::vector<std::vector<std::string>> rows{
      {"effort", "time", "memory", "range", "GPTQ", "learned", "distilled"}};
  for (const auto& planned : report.efforts) {
    const auto& sizes = planned.sizes;
    rows.push_back(
        {planned.effort,
         human_time(planned.seconds.total()),
         human_bytes(double(planned.memory.peak())),
         human_time(planned.range.low) + " to " +
             human_time(planned.range.high),
         std::to_string(sizes.gptq_sequences) + " sequences",
         std::to_string(sizes.learn_steps) + " steps a block",
         std::to_string(sizes.dwq_sequences) + " sequences"});
  }
  std::string notes;
  for (const auto& note : report.notes) {
    notes += "note: " + shown(note) + "\n";
  }
  return "size: " + human_bytes(double(report.bytes_in)) + " -> at most " +
      human_bytes(double(report.bytes_out)) + ", " +
      fixed(report.bits_per_weight, 3) + " bits a weight, scales included\n" +
      table(rows) + "times are of samples of this work, taken here in " +
      fixed(report.rates.seconds, 1) + " s on " +
      std::to_string(report.rates.threads) +
      " threads; reading the text comes on top\n" + notes;
}

}  // namespace

Command plan_command() {
  return {
      "plan",
      "Say what quantize will make and take, without running it",
      "  pennyweight plan Qwen/Qwen3-0.6B --target-bpw 4.5\n",
      [](CLI::App& app) {
        auto options = std::make_shared<QuantizePlanOptions>();
        bind_flags(app, *options);
        return [options](Console& console) {
          const auto folder =
              resolve_model(options->plan.model, console.progress());
          const auto report = plan_quantize(folder, *options);
          console.result(to_json(report), describe(report));
        };
      }};
}

}  // namespace pennyweight::cli
