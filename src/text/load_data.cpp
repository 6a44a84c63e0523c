#include "text/load_data.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "text/choose.h"
#include "text/text_reader.h"

namespace pennyweight {

namespace {

/// Sequences sampled from the model where no number was asked for.
constexpr int kSelfSamples = 128;

std::vector<size_t> order_of(size_t count, const LoadDataOptions& options) {
  if (options.choose_from) {
    return options.choose_from(count);
  }
  const size_t wanted = options.num_samples < 0
      ? count
      : static_cast<size_t>(options.num_samples);
  return choose(count, wanted, options.seed);
}

TokenData sampled(
    const DataSource& source,
    const LoadDataOptions& options,
    const SampleSelfFn& sample_self) {
  const int count =
      options.num_samples < 0 ? kSelfSamples : options.num_samples;
  TokenData data;
  data.sequences = sample_self(count, options.sequence_length, options.seed);
  if (options.choose_from) {
    std::vector<std::vector<int32_t>> chosen;
    for (const size_t index : options.choose_from(data.sequences.size())) {
      chosen.push_back(std::move(data.sequences[index]));
    }
    data.sequences = std::move(chosen);
  }
  data.sources = static_cast<int64_t>(data.sequences.size());
  data.warnings = source.warnings;
  return data;
}

[[noreturn]] void throw_too_few(
    const SourceSummary& summary,
    const DataSource& source,
    const LoadDataOptions& options) {
  throw argument_error(
      "data",
      summary.tokens == 0
          ? source.name + " holds no text"
          : source.name + " holds only " + std::to_string(summary.tokens) +
              " tokens, too few for one sequence of " +
              std::to_string(options.sequence_length) +
              "; give more text or a smaller --sequence-length");
}

TokenData chosen(
    TextReader& reader,
    const DataSource& source,
    const LoadDataOptions& options,
    const ProgressFn& progress) {
  auto summary = reader.read(source, options, progress);
  TokenData data;
  data.warnings = std::move(summary.warnings);
  data.use = std::move(summary.use);
  if (summary.count == 0 && summary.tokens == 0 && !options.judged) {
    return data;
  }
  if (summary.count == 0) {
    throw_too_few(summary, source, options);
  }
  const auto order = order_of(summary.count, options);
  data.sequences = reader.take(order, data.sources);
  if (!options.choose_from &&
      static_cast<int64_t>(summary.count) < options.num_samples) {
    data.warnings.push_back(
        source.name + " gives only " + std::to_string(summary.count) +
        " of the " + std::to_string(options.num_samples) +
        " sequences asked for");
  }
  return data;
}

}  // namespace

TokenData load_data(
    TextReader& reader,
    const LoadDataOptions& options,
    const SampleSelfFn& sample_self,
    const FetchDatasetFn& fetch_dataset,
    const ProgressFn& progress) {
  const auto source =
      find_source(options, static_cast<bool>(sample_self), fetch_dataset);
  TokenData data = source.kind == DataSource::Kind::self
      ? sampled(source, options, sample_self)
      : chosen(reader, source, options, progress);
  data.sequence_length = options.sequence_length;
  data.source = source.name;
  for (const auto& sequence : data.sequences) {
    data.tokens += static_cast<int64_t>(sequence.size());
  }
  if (source.kind == DataSource::Kind::self && data.tokens == 0) {
    throw argument_error("data", "the model gave no text");
  }
  for (const std::string& warning : data.warnings) {
    warn(progress, "data", warning);
  }
  return data;
}

}  // namespace pennyweight
