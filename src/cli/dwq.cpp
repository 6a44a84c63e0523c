#include "commands/dwq.h"

#include "checkpoint/hub.h"
#include "cli/command.h"
#include "pass/ranks.h"

namespace pennyweight::cli {

namespace {

std::string describe(const DwqReport& report) {
  std::string text;
  if (report.trained) {
    const auto& training = report.training;
    text += "data: " + shown(report.data) + "; " +
        std::to_string(report.train_sequences) + " sequences, " +
        std::to_string(report.held_out_sequences) + " held out\n" +
        std::to_string(report.trained_parameters) +
        " scales and biases trained, learning rate " +
        fixed(training.rate * 1e6, 1) + "e-6\nheld-out KL " +
        fixed(training.start, 4) + " -> " + fixed(training.best, 4) +
        (training.best_step > 0
             ? ", best after step " + std::to_string(training.best_step)
             : ": no step was better than the start, which is kept") +
        "\n";
  }
  if (!report.output.empty()) {
    text += fixed(report.bits_per_weight, 3) + " bits a weight, " +
        human_bytes(double(report.bytes_out)) + ", in " +
        fixed(report.seconds, 1) + " s, peak memory " +
        human_bytes(double(report.peak_rss)) + "\nwritten to " +
        shown(report.output) + "\n";
  } else {
    text += "targets of " + std::to_string(report.train_sequences) + " and " +
        std::to_string(report.held_out_sequences) + " sequences are in " +
        shown(report.targets) + "\n";
  }
  return text;
}

void run_dwq(const DwqOptions& options, Console& console) {
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
  std::optional<fs::path> student;
  ranks.first_then_others([&] {
    folder = resolve_model(options.model, progress);
    if (options.quantized_model) {
      student = resolve_model(*options.quantized_model, progress);
    }
  });
  const auto fetch = [&](const std::string& id) {
    return resolve_dataset(id, progress);
  };
  auto report = dwq(folder, student, options, fetch, ranks, progress);
  if (!ranks.first()) {
    return;
  }
  if (file) {
    file->write(json_text(to_json(report)));
  }
  console.result(to_json(report), describe(report));
}

}  // namespace

Command dwq_command() {
  return {
      "dwq",
      "Improve a quantized model by distillation: its scales and biases are "
      "trained towards the full model",
      "  pennyweight dwq --model Qwen/Qwen3-0.6B --mlx-path out\n"
      "  pennyweight dwq --model folder --quantized-model gptq_out --mlx-path "
      "out\n    --data-path notes.txt --num-samples 512 --max-seq-length 513\n"
      "  mpirun -n 2 pennyweight dwq --model folder --mlx-path out\n",
      [](CLI::App& app) {
        auto options = std::make_shared<DwqOptions>();
        bind_flags(app, *options);
        return [options](Console& console) { run_dwq(*options, console); };
      }};
}

}  // namespace pennyweight::cli
