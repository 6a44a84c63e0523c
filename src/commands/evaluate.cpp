#include "eval/evaluate.h"

#include <chrono>
#include <optional>

#include "checkpoint/packed/packed_source.h"
#include "commands/command.h"
#include "core/error.h"
#include "core/json.h"
#include "core/text.h"
#include "eval/float16_range.h"
#include "export/conversion.h"
#include "export/output_type.h"
#include "model/model.h"
#include "run/options.h"

namespace pennyweight {

namespace {

struct EvaluateOptions : SourceOptions {
  std::optional<std::string> reference;
  LoadDataOptions data;
  int batch_size = 0;
  std::optional<std::string> dtype;

  EvaluateOptions() {
    data.num_samples = 256;  // as mlx_lm.perplexity
  }

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    SourceOptions::visit(self, option, true);
    option(
        {.name = "reference",
         .help = "The full-precision model, for KL and top-1 agreement",
         .takes = "MODEL"},
        self.reference);
    LoadDataOptions::visit(self.data, option);
    option(
        {.name = "batch-size",
         .help = "Sequences a batch; 0: as fits the caches",
         .affects_result = false,
         .advanced = true},
        self.batch_size);
    option(
        {.name = "dtype",
         .help = "Type that matrices run in (default: the model's own)",
         .choices = {"float16", "bfloat16", "float32"}},
        self.dtype);
  }
};

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

EvalSettings settings_of(const EvaluateOptions& options, Model& model) {
  EvalSettings settings;
  if (options.dtype) {
    settings.dtype = asked_dtype("evaluate", *options.dtype);
  }
  settings.batch_tokens =
      int64_t{options.batch_size} * options.data.sequence_length;
  // Asked for by the user, or as mlx-lm runs it.
  settings.float16_overflow_fails = settings.dtype || runs_in_float16(model);
  if (!settings.float16_overflow_fails && model.dtype == mx::float16) {
    model.spec.notes.push_back(
        "the weights are float16 but for some that are not, behind which "
        "mlx-lm computes in float32: activations are not checked for float16's "
        "range");
  }
  return settings;
}

std::string with_error(const Mean& mean, int decimals) {
  return fixed(mean.value, decimals) + " +- " +
      fixed(mean.standard_error, decimals);
}

void add_figures(const Evaluation& found, Json& json) {
  json["sequences"] = found.sequences;
  json["tokens"] = found.tokens;
  json["perplexity"] = found.perplexity.value;
  json["perplexity_standard_error"] = found.perplexity.standard_error;
  if (!found.reference) {
    return;
  }
  const auto& against = *found.reference;
  json["reference"]["perplexity"] = against.perplexity.value;
  json["reference"]["perplexity_standard_error"] =
      against.perplexity.standard_error;
  json["kl"] = to_json(against.kl.mean);
  json["kl"]["median"] = against.kl.median;
  json["kl"]["p99"] = against.kl.p99;
  json["kl"]["max"] = against.kl.max;
  json["top1"] = to_json(against.top1);
}

std::string describe(const Evaluation& found) {
  std::vector<std::vector<std::string>> rows{
      {"perplexity", with_error(found.perplexity, 4)}};
  if (found.reference) {
    const auto& against = *found.reference;
    rows.push_back({"reference perplexity", with_error(against.perplexity, 4)});
    rows.push_back({"KL mean", with_error(against.kl.mean, 5)});
    rows.push_back({"KL median", fixed(against.kl.median, 5)});
    rows.push_back({"KL p99", fixed(against.kl.p99, 4)});
    rows.push_back({"KL max", fixed(against.kl.max, 4)});
    rows.push_back({"same top-1", fixed(100 * against.top1.value, 2) + "%"});
  }
  return table(rows);
}

/// Scores the model, beside the reference if any, on text that is tokenized by
/// the model's own tokenizer.
RunReport run(Session& session, const EvaluateOptions& options) {
  if (options.batch_size < 0) {
    session.refuse("--batch-size is negative");
  }
  const auto folder = session.model_folder(options.model);
  auto model = open_model(folder, options.assume_family);
  const auto settings = settings_of(options, model);
  auto& report = session.report();
  auto& figures = report.figures;
  std::optional<Model> reference;
  if (options.reference) {
    const auto other = session.model_folder(*options.reference);
    reference.emplace(open_model(other, options.assume_family));
    figures["reference"] = {
        {"model", other.string()}, {"bytes", model_size(*reference).bytes}};
  }
  report.notes = model.spec.notes;
  session.describe_packing(reference ? *reference : model);
  if (reference && reference->checkpoint.packed()) {
    report.notes.push_back(
        "of the reference: " + reference->checkpoint.packed()->describe());
  }
  // `self` is sampled from the better of the models.
  const auto data =
      session.read_text(folder, reference ? *reference : model, options.data);
  const double start = session.seconds();
  const auto found = evaluate(
      model,
      reference ? &*reference : nullptr,
      as_scored(data),
      settings,
      session.progress());
  const double took = session.seconds() - start;
  const auto size = model_size(model);
  const auto dtype = float_name(settings.dtype.value_or(model.dtype));
  report.parameters = size.parameters;
  figures["model"] = folder.string();
  figures["dtype"] = dtype;
  figures["sources"] = data.sources;
  add_figures(found, figures);
  figures["bytes"] = size.bytes;
  figures["bits_per_weight"] = size.bits_per_weight;
  figures["tokens_per_second"] = double(found.tokens) / took;
  report.text = shown(folder.string()) + ": " + fixed(size.bits_per_weight, 3) +
      " bits a weight, " + human_bytes(double(size.bytes)) +
      "\ndata: " + shown(data.source) + "; " + std::to_string(found.sequences) +
      " sequences, " + std::to_string(found.tokens) + " tokens scored in " +
      dtype + "\n\n" + describe(found) + "\n";
  report.text += notes_text(report) + fixed(double(found.tokens) / took, 0) +
      " tokens/s, ";
  session.finish();
  report.seconds = took;  // without loading the text
  return report;
}

}  // namespace

Command evaluate_command() {
  return make_command<EvaluateOptions>(
      "evaluate",
      "Perplexity, and KL and top-1 agreement against a reference",
      "  pennyweight evaluate qwen3-4bit --data-path notes.txt\n"
      "  pennyweight evaluate qwen3-4bit --reference Qwen/Qwen3-0.6B "
      "--data-path notes.txt\n"
      "  pennyweight evaluate folder --data-path self --num-samples 32\n",
      run);
}

}  // namespace pennyweight
