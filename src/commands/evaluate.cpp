#include "commands/evaluate.h"

#include <chrono>

#include "core/error.h"
#include "core/process.h"
#include "eval/evaluate.h"
#include "eval/float16_range.h"
#include "export/conversion.h"
#include "model/model.h"
#include "pass/sample.h"
#include "text/text_reader.h"

namespace pennyweight {

namespace {

std::optional<mx::Dtype> dtype_by_name(const std::optional<std::string>& name) {
  if (!name) {
    return std::nullopt;
  }
  for (auto [known, dtype] :
       {std::pair{"float32", mx::float32},
        {"bfloat16", mx::bfloat16},
        {"float16", mx::float16}}) {
    if (*name == known) {
      return dtype;
    }
  }
  throw Error(
      ErrorCode::invalid_argument,
      "evaluate",
      "unknown dtype \"" + one_line(*name, 40) + "\"");
}

std::vector<ScoredSequence> as_scored(const TokenData& data) {
  std::vector<ScoredSequence> sequences;
  for (size_t i = 0; i < data.sequences.size(); ++i) {
    ScoredSequence sequence{data.sequences[i]};
    if (!data.masks.empty()) {
      sequence.scored = data.masks[i];
    }
    sequences.push_back(sequence);
  }
  return sequences;
}

Json to_json(const Mean& mean) {
  return {{"mean", mean.value}, {"standard_error", mean.standard_error}};
}

}  // namespace

EvaluateReport evaluate_model(
    const fs::path& model_folder,
    const std::optional<fs::path>& reference_folder,
    const EvaluateOptions& options,
    const FetchDatasetFn& fetch_dataset,
    const ProgressFn& progress) {
  EvalSettings settings;
  settings.dtype = dtype_by_name(options.dtype);
  if (options.batch_size < 0) {
    throw Error(
        ErrorCode::invalid_argument, "evaluate", "--batch-size is negative");
  }
  settings.batch_tokens =
      int64_t{options.batch_size} * options.data.sequence_length;
  auto model = open_model(model_folder, options.assume_family);
  // Asked for by the user, or as mlx-lm runs it.
  settings.float16_overflow_fails = settings.dtype || runs_in_float16(model);
  if (!settings.float16_overflow_fails && model.dtype == mx::float16) {
    model.spec.notes.push_back(
        "the weights are float16 but for some that are not, behind which "
        "mlx-lm computes in float32: activations are not checked for float16's "
        "range");
  }
  std::optional<Model> reference;
  if (reference_folder) {
    reference.emplace(open_model(*reference_folder, options.assume_family));
  }
  const auto data = [&] {
    TextReader reader(model_folder);
    return load_data(
        reader,
        options.data,
        // From the better of the models.
        self_sampler(reference ? *reference : model, reader.facts(), progress),
        fetch_dataset,
        progress);
  }();

  EvaluateReport report;
  auto start = std::chrono::steady_clock::now();
  report.figures = evaluate(
      model,
      reference ? &*reference : nullptr,
      as_scored(data),
      settings,
      progress);
  std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  auto size = model_size(model);
  report.model = model_folder.string();
  report.dtype = float_name(settings.dtype.value_or(model.dtype));
  report.data = data.source;
  report.sources = data.sources;
  report.data_use = data.use;
  report.parameters = size.parameters;
  report.bytes = size.bytes;
  report.bits_per_weight = size.bits_per_weight;
  report.notes = model.spec.notes;
  if (reference) {
    report.reference = reference_folder->string();
    report.reference_bytes = model_size(*reference).bytes;
  }
  report.notes.insert(
      report.notes.end(), data.warnings.begin(), data.warnings.end());
  report.seconds = took.count();
  report.tokens_per_second =
      static_cast<double>(report.figures.tokens) / took.count();
  report.peak_rss = peak_rss();
  return report;
}

Json to_json(const EvaluateReport& report) {
  const Evaluation& figures = report.figures;
  Json json = {
      {"model", report.model},
      {"dtype", report.dtype},
      {"data", report.data},
      {"sources", report.sources},
      {"data_use", to_json(report.data_use)},
      {"sequences", figures.sequences},
      {"tokens", figures.tokens},
      {"perplexity", figures.perplexity.value},
      {"perplexity_standard_error", figures.perplexity.standard_error},
      {"parameters", report.parameters},
      {"bytes", report.bytes},
      {"bits_per_weight", report.bits_per_weight},
      {"seconds", report.seconds},
      {"tokens_per_second", report.tokens_per_second},
      {"peak_rss", report.peak_rss},
      {"notes", report.notes}};
  if (figures.reference) {
    const auto& against = *figures.reference;
    json["reference"] = {
        {"model", report.reference},
        {"bytes", report.reference_bytes},
        {"perplexity", against.perplexity.value},
        {"perplexity_standard_error", against.perplexity.standard_error}};
    json["kl"] = to_json(against.kl.mean);
    json["kl"]["median"] = against.kl.median;
    json["kl"]["p99"] = against.kl.p99;
    json["kl"]["max"] = against.kl.max;
    json["top1"] = to_json(against.top1);
  }
  return json;
}

}  // namespace pennyweight
