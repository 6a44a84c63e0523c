#include "method/dwq/data.h"

#include <algorithm>

#include "core/error.h"
#include "pass/sample.h"
#include "text/text_reader.h"

namespace pennyweight {

namespace {

constexpr size_t kHeldOut = 32;  // as mlx_lm

using Sequences = std::vector<std::vector<int32_t>>;

[[noreturn]] void refuse_data(const std::string& what) {
  throw argument_error("dwq", what);
}

class Loader {
 public:
  Loader(
      const Model& teacher,
      const DwqOptions& options,
      const ProcessGroup& ranks,
      const ProgressFn& progress)
      : teacher_(teacher),
        options_(options),
        ranks_(ranks),
        progress_(progress) {}

  DwqData load(const fs::path& folder, const FetchDatasetFn& fetch) {
    TextReader reader(folder);
    LoadDataOptions wanted{
        .data_path = options_.data_path,
        .sequence_length = options_.max_seq_length,
        .seed = options_.seed,
        .choose_from = [this](size_t count) { return choose(count); }};
    if (options_.data_path == "self") {
      wanted.num_samples = options_.num_samples + static_cast<int>(kHeldOut);
    }
    auto data = load_data(
        reader,
        wanted,
        self_sampler(teacher_, reader.facts(), progress_),
        fetch,
        progress_);
    result_.source = data.source;
    result_.use = data.use;
    result_.notes.insert(
        result_.notes.begin(), data.warnings.begin(), data.warnings.end());
    split(std::move(data.sequences));
    batch(result_.train);
    batch(result_.valid);
    return std::move(result_);
  }

 private:
  void note(const std::string& text) {
    result_.notes.push_back(text);
    warn(progress_, "dwq", text);
  }

  /// Those to train on, then those to hold out, of all that there are.
  std::vector<size_t> choose(size_t count) {
    if (count < 2) {
      refuse_data(
          "the data holds " + std::to_string(count) +
          " sequences; one to train on and one to hold out are the least");
    }
    const auto wanted = static_cast<size_t>(options_.num_samples);
    size_t held_out = kHeldOut;
    if (count < wanted + kHeldOut) {
      held_out = std::clamp<size_t>(count / 9, 1, kHeldOut);
      note(
          "the data holds " + std::to_string(count) + " sequences of the " +
          std::to_string(wanted + kHeldOut) + " asked for; " +
          std::to_string(held_out) + " of them are held out");
    }
    const auto order =
        NumpyRandom(static_cast<uint32_t>(options_.seed)).permutation(count);
    taken_ = std::min(wanted, count - held_out);
    const auto end =
        order.begin() + static_cast<std::ptrdiff_t>(taken_ + held_out);
    return {order.begin(), end};
  }

  void split(Sequences sequences) {
    for (size_t i = 0; i < sequences.size(); ++i) {
      auto& part = i < taken_ ? result_.train : result_.valid;
      part.sequences.push_back(std::move(sequences[i]));
    }
  }

  void batch(DistillSplit& split) {
    const size_t size = std::min(
        static_cast<size_t>(options_.batch_size), split.sequences.size());
    const auto ranks = static_cast<size_t>(ranks_.size());
    if (!options_.pipeline && size < ranks) {
      refuse_data(
          "a batch of " + std::to_string(size) +
          " sequences is too small for " + std::to_string(ranks) +
          " processes; give --batch-size or --pipeline");
    }
    const size_t left = make_dwq_batches(
        split,
        teacher_.spec.vocab,
        size,
        static_cast<size_t>(options_.max_seq_length),
        static_cast<uint32_t>(options_.seed));
    if (left > 0) {
      note(
          std::to_string(left) + " sequences of " + split.name +
          " fill no batch and are left out, as in mlx-lm");
    }
  }

  const Model& teacher_;
  const DwqOptions& options_;
  const ProcessGroup& ranks_;
  const ProgressFn& progress_;
  DwqData result_;
  size_t taken_ = 0;  // sequences to train on
};

}  // namespace

size_t make_dwq_batches(
    DistillSplit& split,
    int64_t vocab,
    size_t batch_size,
    size_t max_length,
    uint32_t seed) {
  std::vector<size_t> lengths;
  for (const auto& sequence : split.sequences) {
    lengths.push_back(sequence.size());
    require_in_vocabulary(sequence, vocab, "dwq");
  }
  const size_t size = std::min(batch_size, lengths.size());
  split.batches = distill_batches(lengths, size, max_length, seed);
  return lengths.size() - split.batches.size() * size;
}

DwqData load_dwq_data(
    const Model& teacher,
    const fs::path& teacher_folder,
    const DwqOptions& options,
    const ProcessGroup& ranks,
    const FetchDatasetFn& fetch_dataset,
    const ProgressFn& progress) {
  return Loader(teacher, options, ranks, progress)
      .load(teacher_folder, fetch_dataset);
}

}  // namespace pennyweight
