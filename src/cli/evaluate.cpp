#include "commands/evaluate.h"

#include "checkpoint/hub.h"
#include "cli/command.h"

namespace pennyweight::cli {

namespace {

std::string with_error(const Mean& mean, int decimals) {
  return fixed(mean.value, decimals) + " +- " +
      fixed(mean.standard_error, decimals);
}

std::string describe(const EvaluateReport& report) {
  const Evaluation& figures = report.figures;
  std::string text = shown(report.model) + ": " +
      fixed(report.bits_per_weight, 3) + " bits a weight, " +
      human_bytes(static_cast<double>(report.bytes)) + "\n";
  text += "data: " + shown(report.data) + "; " +
      std::to_string(figures.sequences) + " sequences, " +
      std::to_string(figures.tokens) + " tokens scored in " + report.dtype +
      "\n\n";
  std::vector<std::vector<std::string>> rows{
      {"perplexity", with_error(figures.perplexity, 4)}};
  if (figures.reference) {
    const auto& against = *figures.reference;
    rows.push_back({"reference perplexity", with_error(against.perplexity, 4)});
    rows.push_back({"KL mean", with_error(against.kl.mean, 5)});
    rows.push_back({"KL median", fixed(against.kl.median, 5)});
    rows.push_back({"KL p99", fixed(against.kl.p99, 4)});
    rows.push_back({"KL max", fixed(against.kl.max, 4)});
    rows.push_back({"same top-1", fixed(100 * against.top1.value, 2) + "%"});
  }
  text += table(rows) + "\n" + fixed(report.seconds, 1) + " s, " +
      fixed(report.tokens_per_second, 0) + " tokens/s, peak memory " +
      human_bytes(static_cast<double>(report.peak_rss)) + "\n";
  for (const auto& note : report.notes) {
    text += "note: " + shown(note) + "\n";
  }
  return text;
}

}  // namespace

Command evaluate_command() {
  return {
      "evaluate",
      "Perplexity, and KL and top-1 agreement against a reference",
      "  pennyweight evaluate qwen3-4bit --data-path notes.txt\n"
      "  pennyweight evaluate qwen3-4bit --reference Qwen/Qwen3-0.6B "
      "--data-path notes.txt\n"
      "  pennyweight evaluate folder --data-path self --num-samples 32\n",
      [](CLI::App& app) {
        auto options = std::make_shared<EvaluateOptions>();
        bind_flags(app, *options);
        return [options](Console& console) {
          auto progress = console.progress();
          auto model = resolve_model(options->model, progress);
          std::optional<fs::path> reference;
          if (options->reference) {
            reference = resolve_model(*options->reference, progress);
          }
          auto fetch = [&progress](const std::string& id) {
            return resolve_dataset(id, progress);
          };
          auto report =
              evaluate_model(model, reference, *options, fetch, progress);
          console.result(to_json(report), describe(report));
        };
      }};
}

}  // namespace pennyweight::cli
