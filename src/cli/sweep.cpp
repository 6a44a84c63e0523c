#include "commands/sweep.h"

#include "checkpoint/hub.h"
#include "cli/command.h"

namespace pennyweight::cli {

namespace {

std::string describe(const SweepReport& report) {
  std::vector<std::vector<std::string>> rows{
      {"bits a weight", "size", "estimated KL", "KL"}};
  for (const auto& point : report.points) {
    rows.push_back(
        {fixed(point.bits_per_weight, 3),
         human_bytes(double(point.bytes)),
         fixed(point.estimated, 4),
         point.kl ? fixed(*point.kl, 4) : "-"});
  }
  return table(rows) + "costs took " + fixed(report.cost_seconds, 1) +
      " s, all " + fixed(report.seconds, 1) + " s\nwritten to " +
      shown(report.output) + "\n";
}

}  // namespace

Command sweep_command() {
  return {
      "sweep",
      "Measure the frontier of size against KL, widths chosen for each size",
      "  pennyweight sweep Qwen/Qwen3-0.6B --bpw 2.5:6:0.25 -o sweep\n"
      "  pennyweight sweep folder --bpw 3,4,5 --estimate -o estimates\n",
      [](CLI::App& app) {
        auto options = std::make_shared<SweepOptions>();
        bind_flags(app, *options);
        return [options](Console& console) {
          require_one_process("sweep");
          const auto progress = console.progress();
          const auto folder = resolve_model(options->plan.model, progress);
          const auto report = sweep(
              folder,
              *options,
              [&](const std::string& id) {
                return resolve_dataset(id, progress);
              },
              progress);
          console.result(to_json(report), describe(report));
        };
      }};
}

}  // namespace pennyweight::cli
