#include "commands/dwq.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "commands/convert.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "core/process.h"
#include "core/version.h"
#include "export/conversion.h"
#include "export/write_model.h"
#include "method/dwq/data.h"
#include "run/check_output.h"
#include "run/work/fingerprint.h"
#include "run/work/work_folder.h"
#include "text/text_reader.h"

namespace pennyweight {

namespace {

constexpr const char* kWhere = "dwq";
// Of a step's inputs, and of what the teacher has made for later steps.
constexpr int64_t kActivationBytes = int64_t{64} << 20;

using Clock = std::chrono::steady_clock;

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

int64_t count_sequences(const DistillSplit& split) {
  int64_t count = 0;
  for (const auto& batch : split.batches) {
    count += static_cast<int64_t>(batch.sequences.size());
  }
  return count;
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
      if (student_folder) {
        check_output(kWhere, *student_folder, options.mlx_path);
      }
      check_folders(
          kWhere,
          student_folder.value_or(folder_),
          options.mlx_path,
          options.force,
          ranks.first(),
          progress);
    }
  }

  DwqReport run(const FetchDatasetFn& fetch) {
    return run(
        load_dwq_data(teacher_, folder_, options_, ranks_, fetch, progress_));
  }

  DwqReport run(DwqData data) {
    data_ = std::move(data);
    result_.data = data_.source;
    result_.data_use = data_.use;
    result_.notes.insert(
        result_.notes.end(), data_.notes.begin(), data_.notes.end());
    result_.train_sequences = count_sequences(data_.train);
    result_.held_out_sequences = count_sequences(data_.valid);
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
  }

  void make_targets() {
    const fs::path folder = *options_.target_dir;
    result_.targets = folder.string();
    for (const auto* split : {&data_.valid, &data_.train}) {
      write_targets(
          teacher_, teacher_part_, *split, folder, kActivationBytes, progress_);
      check_targets(folder, *split);
    }
  }

  WorkSettings settings() const {
    std::map<std::string, ModelIdentity> models{{"model", identify(teacher_)}};
    if (student_) {
      models["student"] = identify(*student_);
    }
    return {settings_json(), std::move(models)};
  }

  Json settings_json() const {
    return {
        {"method", kWhere},
        {"version", version()},
        {"options", options_to_json(options_, true)},
        {"student", student_.has_value()},
        {"data",
         fingerprint(data_.train.sequences) +
             fingerprint(data_.valid.sequences)},
        {"processes", ranks_.size()}};
  }

  // The first rank makes it ready, then the others read.
  void open_work() {
    const ResumePolicy policy{options_.resume, options_.force, options_.part};
    ranks_.first_then_others([&] {
      work_.emplace(options_.mlx_path, settings(), policy, ranks_.first());
    });
    for (const auto& text : work_->warnings()) {
      note(text);
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
      if (packed && is_trained(it->second)) {
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
            {data_.train, data_.valid, *train_targets, *valid_targets},
            {.learning_rate = options_.learning_rate},
            *work_,
            progress_);
      } else {
        note(
            "nothing can be trained, since no module has affine scales of "
            "fewer than 8 bits: the start is kept");
      }
    }
    if (result_.training.diverged) {
      note(
          "training diverged after step " +
          std::to_string(
              result_.training.curve.empty()
                  ? 0
                  : result_.training.curve.back().step) +
          ": choose a lower --learning-rate");
    }
    if (result_.trained && result_.training.tensors.empty()) {
      note("no step was better on held-out text than the start, which is kept");
    }
    teacher_.checkpoint.require_unchanged();
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
      write_file(output.path() / "dwq_log.csv", log_csv(result_.training));
    }
    output.commit();
    result_.output = options_.mlx_path;
    result_.parameters = model_size(*student_).parameters;
    result_.bytes_out = written.bytes;
    result_.bits_per_weight = written.bits_per_weight;
  }

  fs::path folder_;
  const DwqOptions& options_;
  const Ranks& ranks_;
  ProgressFn progress_;
  Clock::time_point start_;
  Model teacher_;
  ModelPart teacher_part_;
  std::optional<Model> student_;
  DwqData data_;
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

DwqReport dwq_on(
    const fs::path& model_folder,
    const std::optional<fs::path>& student_folder,
    const DwqOptions& options,
    DwqData data,
    const Ranks& ranks,
    const ProgressFn& progress) {
  return Run(model_folder, student_folder, options, ranks, progress)
      .run(std::move(data));
}

}  // namespace pennyweight
