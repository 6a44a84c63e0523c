#include "pipeline/dwq.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "calibration/sample.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "core/process.h"
#include "model/gradients.h"
#include "pipeline/check_output.h"
#include "pipeline/conversion.h"
#include "pipeline/convert.h"
#include "pipeline/fingerprint.h"
#include "pipeline/write_model.h"
#include "text/tokenizer.h"

namespace pennyweight {

namespace {

constexpr const char* kWhere = "dwq";
constexpr size_t kHeldOut = 32;  // as mlx_lm
// Of a step's inputs, and of what the teacher has made for later steps.
constexpr int64_t kActivationBytes = int64_t{64} << 20;

using Clock = std::chrono::steady_clock;
using Sequences = std::vector<std::vector<int32_t>>;

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ErrorCode::invalid_argument, kWhere, what);
}

void check(const DwqOptions& options) {
  if (options.num_samples < 1) {
    refuse("--num-samples has to be at least 1");
  }
  if (options.batch_size < 1) {
    refuse("--batch-size has to be at least 1");
  }
  if (options.max_seq_length < 2) {
    refuse("--max-seq-length has to be at least 2");
  }
  if (options.seed > 0xffffffff) {
    refuse("--seed has to be below 2^32");
  }
  if (options.learning_rate &&
      !(*options.learning_rate > 0 && std::isfinite(*options.learning_rate))) {
    refuse("--learning-rate has to be above 0");
  }
  if (options.targets_only && !options.target_dir) {
    refuse("--targets-only writes --target-dir; give one");
  }
  make_quant_spec("affine", options.bits, options.group_size);
}

class Run {
 public:
  Run(const fs::path& teacher_folder,
      const std::optional<fs::path>& student_folder,
      const DwqOptions& options,
      const Ranks& ranks,
      const ProgressFn& progress)
      : folder_(teacher_folder),
        options_(options),
        ranks_(ranks),
        progress_(progress),
        start_(Clock::now()),
        teacher_((check(options), open_model(folder_, options.assume_family))),
        teacher_part_(ModelPart::of(teacher_.spec, ranks, options.pipeline)) {
    if (!teacher_.quantized.empty() && !teacher_.published_packed) {
      refuse(
          folder_.string() +
          " is quantized; --model is the full-precision model, and "
          "--quantized-model what to improve");
    }
    for (const auto& text : teacher_.spec.notes) {
      note(text);
    }
    if (student_folder) {
      open_student(*student_folder);
    }
    if (!options.targets_only) {
      require_gradients(teacher_.spec, kWhere);
      check_output(kWhere, folder_, options.mlx_path);
      if (student_folder) {
        check_output(kWhere, *student_folder, options.mlx_path);
      }
      if (ranks.first()) {
        AtomicFolder(options.mlx_path, options.force);
      }
    }
    check_tokenizer(folder_, kWhere, progress);
  }

  DwqReport run(const FetchDatasetFn& fetch) {
    load(fetch);
    if (options_.target_dir) {
      make_targets();
    }
    if (!options_.targets_only) {
      distill();
    }
    result_.ranks = ranks_.size();
    result_.seconds =
        std::chrono::duration<double>(Clock::now() - start_).count();
    result_.peak_rss = peak_rss();
    return std::move(result_);
  }

 private:
  void note(const std::string& text) {
    result_.notes.push_back(text);
    warn(progress_, kWhere, text);
  }

  void open_student(const fs::path& folder) {
    student_ = open_model(folder, options_.assume_family);
    if (student_->quantized.empty()) {
      refuse(
          folder.string() +
          " is not quantized; leave out --quantized-model to round the full "
          "model");
    }
    if (student_->spec.vocab != teacher_.spec.vocab) {
      refuse(
          folder.string() + " has a vocabulary of " +
          std::to_string(student_->spec.vocab) + ", the full model of " +
          std::to_string(teacher_.spec.vocab));
    }
    require_gradients(student_->spec, kWhere);
  }

  // Rows are chosen as mlx_lm chooses them, so that targets may be shared.
  void load(const FetchDatasetFn& fetch) {
    auto tokenizer = Tokenizer::load(folder_);
    LoadDataOptions wanted{
        .data_path = options_.data_path,
        .sequence_length = options_.max_seq_length,
        .seed = options_.seed};
    if (options_.data_path == "self") {
      wanted.num_samples = options_.num_samples + static_cast<int>(kHeldOut);
    }
    auto data = load_data(
        tokenizer,
        wanted,
        self_sampler(teacher_, tokenizer, progress_),
        fetch,
        progress_);
    result_.data = data.source;
    result_.notes.insert(
        result_.notes.end(), data.warnings.begin(), data.warnings.end());
    // What is to be predicted has to be there.
    std::erase_if(data.sequences, [](const auto& x) { return x.size() < 2; });
    split(std::move(data.sequences));
    data_ = fingerprint(train_.sequences) + fingerprint(valid_.sequences);
  }

  void split(Sequences sequences) {
    const size_t count = sequences.size();
    if (count < 2) {
      refuse(
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
    const size_t taken = std::min(wanted, count - held_out);
    for (size_t i = 0; i < taken + held_out; ++i) {
      auto& part = i < taken ? train_ : valid_;
      part.sequences.push_back(std::move(sequences[order[i]]));
    }
    batch(train_);
    batch(valid_);
  }

  void batch(DistillSplit& split) {
    std::vector<size_t> lengths;
    for (const auto& sequence : split.sequences) {
      lengths.push_back(sequence.size());
      for (int32_t token : sequence) {
        if (token < 0 || token >= teacher_.spec.vocab) {
          refuse(
              "token " + std::to_string(token) +
              " is outside the vocabulary of " +
              std::to_string(teacher_.spec.vocab) +
              "; the tokenizer does not belong to the model");
        }
      }
    }
    const auto size = static_cast<size_t>(options_.batch_size);
    const auto ranks = static_cast<size_t>(ranks_.size());
    if (!options_.pipeline && std::min(size, lengths.size()) < ranks) {
      refuse(
          "a batch of " + std::to_string(std::min(size, lengths.size())) +
          " sequences is too small for " + std::to_string(ranks) +
          " processes; give --batch-size or --pipeline");
    }
    split.batches = distill_batches(
        lengths,
        size,
        static_cast<size_t>(options_.max_seq_length),
        static_cast<uint32_t>(options_.seed));
    const size_t used = split.batches.size() * std::min(size, lengths.size());
    if (used < lengths.size()) {
      note(
          std::to_string(lengths.size() - used) + " sequences of " +
          split.name + " fill no batch and are left out, as in mlx-lm");
    }
    auto& count = split.name == "train" ? result_.train_sequences
                                        : result_.held_out_sequences;
    count = static_cast<int64_t>(used);
  }

  void make_targets() {
    const fs::path folder = *options_.target_dir;
    result_.targets = folder.string();
    for (const auto* split : {&valid_, &train_}) {
      write_targets(
          teacher_, teacher_part_, *split, folder, kActivationBytes, progress_);
      check_targets(folder, *split);
    }
  }

  Json settings() const {
    return {
        {"method", kWhere},
        {"version", PENNYWEIGHT_VERSION},
        {"options", options_to_json(options_, true)},
        {"model", fingerprint(teacher_)},
        {"student", student_ ? Json(fingerprint(*student_)) : Json()},
        {"data", data_},
        {"processes", ranks_.size()}};
  }

  // The first rank makes it ready, then the others read.
  void open_work() {
    const ResumePolicy policy{options_.resume, options_.force};
    for (bool turn : {true, false}) {
      if (turn == ranks_.first()) {
        work_.emplace(options_.mlx_path, settings(), policy, ranks_.first());
      }
      ranks_.barrier();
    }
    if (student_) {
      return;
    }
    const auto rounded = work_->path() / "student";
    if (ranks_.first()) {
      ConvertOptions convert_options;
      convert_options.model = options_.model;
      convert_options.mlx_path = rounded.string();
      convert_options.assume_family = options_.assume_family;
      convert_options.quantize = true;
      convert_options.q_bits = options_.bits;
      convert_options.q_group_size = options_.group_size;
      const auto made = convert(folder_, convert_options, progress_);
      result_.notes.insert(
          result_.notes.end(), made.notes.begin(), made.notes.end());
    }
    ranks_.barrier();
    open_student(rounded);
  }

  void list_untrained(const Student& student) {
    for (const ModuleSpec& module : list_homes(student_->spec)) {
      auto it = student_->quantized.find(module.path);
      const bool packed = it != student_->quantized.end();
      if (packed && it->second.mode == "affine" && it->second.bits < 8) {
        continue;
      }
      result_.untrained.push_back(
          module.path + ": " +
          (!packed                           ? "in floats"
               : it->second.mode != "affine" ? "its scales are no floats"
                                             : "8 bits"));
    }
    result_.trained_modules = static_cast<int64_t>(student.trained().size());
    result_.trained_parameters = student.parameters();
    if (!result_.untrained.empty() && result_.trained_modules > 0) {
      note(
          std::to_string(result_.untrained.size()) +
          " modules are not trained (in floats, of 8 bits, or with scales that "
          "are no floats): " +
          result_.untrained.front() +
          (result_.untrained.size() > 1 ? ", ..." : ""));
    }
  }

  std::unique_ptr<Targets> targets() const {
    if (options_.target_dir) {
      return std::make_unique<StoredTargets>(
          *options_.target_dir, student_->spec.vocab);
    }
    return std::make_unique<TeacherTargets>(
        teacher_, teacher_part_, kActivationBytes, work_->path());
  }

  void distill() {
    open_work();
    const auto part = ModelPart::of(student_->spec, ranks_, options_.pipeline);
    ops::keep_freed_memory();
    {
      Student student(*student_, part);
      list_untrained(student);
      result_.trained = !student.trained().empty();
      if (result_.trained) {
        Distiller distiller(student, part, kActivationBytes, work_->path());
        const auto train_targets = targets();
        const auto valid_targets = targets();
        result_.training = train_dwq(
            student,
            distiller,
            part,
            {train_, valid_, *train_targets, *valid_targets},
            {.learning_rate = options_.learning_rate},
            *work_,
            progress_);
      } else {
        note(
            "nothing can be trained, since no module has affine scales of "
            "fewer than 8 bits: the start is kept");
      }
    }
    if (result_.trained && result_.training.tensors.empty()) {
      note("no step was better on held-out text than the start, which is kept");
    }
    if (ranks_.first()) {
      write();
      work_->remove();
    }
    ranks_.barrier();
  }

  std::string summary() const {
    if (result_.training.tensors.empty()) {
      return "DWQ kept the quantized model as it was, at %bpw bits a weight, "
             "scales included.";
    }
    return "Scales and biases distilled from the full model (DWQ) at %bpw "
           "bits a weight, scales included, on " +
        std::to_string(result_.train_sequences) + " sequences of " +
        result_.data + ".";
  }

  void write() {
    ConversionSettings settings;
    settings.floats = [&](const std::string& name) -> std::optional<mx::array> {
      auto it = result_.training.tensors.find(name);
      return it == result_.training.tensors.end() ? std::nullopt
                                                  : std::optional(it->second);
    };
    Conversion conversion(*student_, settings);
    AtomicFolder output(options_.mlx_path, options_.force);
    auto written = write_model(
        *student_,
        conversion,
        output.path(),
        options_.model,
        summary(),
        kWhere,
        progress_);
    if (result_.trained) {
      write_file(output.path() / "dwq_log.csv", csv());
    }
    output.commit();
    result_.output = options_.mlx_path;
    result_.parameters = model_size(*student_).parameters;
    result_.bytes_out = written.bytes;
    result_.bits_per_weight = written.bits_per_weight;
  }

  std::string csv() const {
    std::string text =
        "step,tokens,learning_rate,loss,gradient_norm,held_out_kl\n";
    char line[160];
    std::snprintf(line, sizeof(line), "0,0,,,,%.6g\n", result_.training.start);
    text += line;
    for (const auto& point : result_.training.curve) {
      std::snprintf(
          line,
          sizeof(line),
          "%lld,%lld,%.6g,%.6g,%.6g,",
          static_cast<long long>(point.step),
          static_cast<long long>(point.tokens),
          point.rate,
          point.loss,
          point.norm);
      text += line;
      if (point.held_out) {
        std::snprintf(line, sizeof(line), "%.6g", *point.held_out);
        text += line;
      }
      text += "\n";
    }
    return text;
  }

  fs::path folder_;
  const DwqOptions& options_;
  const Ranks& ranks_;
  ProgressFn progress_;
  Clock::time_point start_;
  Model teacher_;
  ModelPart teacher_part_;
  std::optional<Model> student_;
  DistillSplit train_{"train", {}, {}};
  DistillSplit valid_{"valid", {}, {}};
  std::string data_;  // fingerprint
  std::optional<WorkFolder> work_;
  DwqReport result_;
};

}  // namespace

DwqReport dwq(
    const fs::path& model_folder,
    const std::optional<fs::path>& student_folder,
    const DwqOptions& options,
    const FetchDatasetFn& fetch_dataset,
    const Ranks& ranks,
    const ProgressFn& progress) {
  return Run(model_folder, student_folder, options, ranks, progress)
      .run(fetch_dataset);
}

Json to_json(const DwqReport& report) {
  Json json{
      {"output", report.output},
      {"targets", report.targets},
      {"data", report.data},
      {"train_sequences", report.train_sequences},
      {"held_out_sequences", report.held_out_sequences},
      {"trained_modules", report.trained_modules},
      {"trained_parameters", report.trained_parameters},
      {"untrained", report.untrained}};
  if (report.trained) {
    const auto& training = report.training;
    json["learning_rate"] = training.rate;
    json["trial"] = training.trial;
    json["start_kl"] = training.start;
    json["best_kl"] = training.best;
    json["best_step"] = training.best_step;
    json["resumed_steps"] = training.resumed_steps;
    json["tokens_per_second"] = training.seconds > 0
        ? static_cast<double>(training.tokens) / training.seconds
        : 0.0;
    json["curve"] = Json::array();
    for (const auto& point : training.curve) {
      json["curve"].push_back(to_json(point));
    }
  }
  json["parameters"] = report.parameters;
  json["bytes"] = report.bytes_out;
  json["bits_per_weight"] = report.bits_per_weight;
  json["seconds"] = report.seconds;
  json["peak_rss"] = report.peak_rss;
  json["processes"] = report.ranks;
  json["notes"] = report.notes;
  return json;
}

}  // namespace pennyweight
