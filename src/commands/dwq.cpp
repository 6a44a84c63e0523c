#include "commands/dwq.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "commands/command.h"
#include "commands/convert.h"
#include "commands/dwq_report.h"
#include "core/error.h"
#include "core/files/atomic_file.h"
#include "core/json.h"
#include "core/version.h"
#include "export/conversion.h"
#include "export/write_model.h"
#include "method/dwq/train.h"
#include "run/check_output.h"
#include "run/pins/pinned_widths.h"
#include "run/work/fingerprint.h"
#include "run/work/work_folder.h"
#include "text/text_reader.h"

namespace pennyweight {

namespace {

// Of a step's inputs, and of what the teacher has made for later steps.
constexpr int64_t kActivationBytes = int64_t{64} << 20;

void check(const Session& session, const DwqOptions& options) {
  if (options.num_samples < 1) {
    session.refuse("--num-samples has to be at least 1");
  }
  if (options.batch_size < 1) {
    session.refuse("--batch-size has to be at least 1");
  }
  if (options.max_seq_length < 2) {
    session.refuse("--max-seq-length has to be at least 2");
  }
  if (options.seed > 0xffffffff) {
    session.refuse("--seed has to be below 2^32");
  }
  if (options.learning_rate &&
      !(*options.learning_rate > 0 && std::isfinite(*options.learning_rate))) {
    session.refuse("--learning-rate has to be above 0");
  }
  if (options.targets_only && !options.target_dir) {
    session.refuse("--targets-only writes --target-dir; give one");
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

class Distillation {
 public:
  Distillation(
      Session& session,
      const Model& teacher,
      const fs::path& teacher_folder,
      const std::optional<fs::path>& student_folder,
      const DwqRunOptions& options)
      : session_(session),
        teacher_(teacher),
        folder_(teacher_folder),
        options_(options),
        own_(options.dwq),
        ranks_(session.group()),
        teacher_part_(ModelPart::of(teacher.spec, ranks_, own_.pipeline)) {
    if (teacher.is_rounded()) {
      session.refuse(
          folder_.string() +
          " is quantized; --model is the full-precision model, and "
          "--quantized-model what to improve");
    }
    session.describe_packing(teacher);
    session.note(teacher.spec.notes);
    if (const auto& token = teacher.spec.token_inputs) {
      if (teacher_part_.pipeline) {
        session.refuse(
            "--pipeline shares out blocks, of which each of this model reads "
            "what " +
            token->table + " holds of a token; leave it out");
      }
    }
    if (student_folder) {
      open_student(*student_folder);
    }
    settle_pins();
    if (!own_.targets_only) {
      if (student_folder) {
        check_output(session.command(), *student_folder, options.mlx_path);
      }
      session.check_folders(student_folder.value_or(folder_), options);
    }
  }

  void run(std::optional<DwqData> data) {
    data_ = data ? std::move(*data)
                 : load_dwq_data(
                       teacher_,
                       folder_,
                       own_,
                       ranks_,
                       session_.fetch_dataset(),
                       session_.progress());
    done_.train_sequences = count_sequences(data_.train);
    done_.held_out_sequences = count_sequences(data_.valid);
    auto& report = session_.report();
    report.data = data_.source;
    report.data_use = data_.use;
    report.notes.insert(
        report.notes.end(), data_.notes.begin(), data_.notes.end());
    report.figures["targets"] = "";
    report.figures["train_sequences"] = done_.train_sequences;
    report.figures["held_out_sequences"] = done_.held_out_sequences;
    if (own_.target_dir) {
      make_targets();
    }
    if (!own_.targets_only) {
      distill();
    }
    report.text += pins_.text();
    report_distillation(done_, own_, report);
  }

 private:
  // The student is rounded later, when the text has been read.
  void settle_pins() {
    if (options_.pins.empty()) {
      return;
    }
    if (student_) {
      session_.refuse(
          "--pin, --at-least and --keep do nothing beside --quantized-model, "
          "whose widths stay as they are");
    }
    pins_ = PinnedWidths(
        teacher_,
        options_.pins,
        {.where = session_.command(),
         .common = make_quant_spec("affine", own_.bits, own_.group_size)});
    session_.report().figures["pins"] = pins_.json();
  }

  void open_student(const fs::path& folder) {
    student_ = open_model(folder, options_.assume_family);
    if (student_->quantized.empty()) {
      session_.refuse(
          folder.string() +
          " is not quantized; leave out --quantized-model to round the full "
          "model");
    }
    if (student_->spec.vocab != teacher_.spec.vocab) {
      session_.refuse(
          folder.string() + " has a vocabulary of " +
          std::to_string(student_->spec.vocab) + ", the full model of " +
          std::to_string(teacher_.spec.vocab));
    }
  }

  void make_targets() {
    const fs::path folder = *own_.target_dir;
    session_.report().figures["targets"] = folder.string();
    for (const auto* split : {&data_.valid, &data_.train}) {
      write_targets(
          teacher_,
          teacher_part_,
          *split,
          folder,
          kActivationBytes,
          session_.progress());
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
        {"method", session_.command()},
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
    session_.note(work_->warnings());
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
      convert_options.q_bits = own_.bits;
      convert_options.q_group_size = own_.group_size;
      convert_options.pins = options_.pins;
      Session rounding("convert", session_.progress(), alone_);
      convert(rounding, folder_, convert_options);
      const auto& notes = rounding.report().notes;
      auto& all = session_.report().notes;
      std::ranges::copy_if(
          notes, std::back_inserter(all), [&](const std::string& note) {
            return std::ranges::count(all, note) == 0;  // of both
          });
    }
    ranks_.barrier();
    open_student(rounded);
  }

  void list_untrained(const Student& student) {
    const auto untrained = untrained_modules(*student_);
    done_.trained = !student.trained().empty();
    auto& figures = session_.report().figures;
    figures["trained_modules"] = student.trained().size();
    figures["trained_parameters"] = student.parameters();
    figures["untrained"] = untrained;
    if (!untrained.empty() && done_.trained) {
      session_.note(
          std::to_string(untrained.size()) +
          " modules are not trained (in floats, of 8 bits, or with scales that "
          "are no floats): " +
          untrained.front() + (untrained.size() > 1 ? ", ..." : ""));
    }
  }

  std::unique_ptr<Targets> targets() const {
    if (own_.target_dir) {
      return std::make_unique<StoredTargets>(
          *own_.target_dir, student_->spec.vocab);
    }
    return std::make_unique<TeacherTargets>(
        teacher_, teacher_part_, kActivationBytes, work_->path());
  }

  void distill() {
    open_work();
    const auto part = ModelPart::of(student_->spec, ranks_, own_.pipeline);
    ops::keep_freed_memory();
    {
      Student student(*student_, part);
      list_untrained(student);
      if (done_.trained) {
        Distiller distiller(student, part, kActivationBytes, work_->path());
        const auto train_targets = targets();
        const auto valid_targets = targets();
        done_.training = train_dwq(
            student,
            distiller,
            part,
            {data_.train, data_.valid, *train_targets, *valid_targets},
            {.learning_rate = own_.learning_rate},
            *work_,
            session_.progress());
      } else {
        session_.note(
            "nothing can be trained, since no module has affine scales of "
            "fewer than 8 bits: the start is kept");
      }
    }
    if (done_.training.diverged) {
      session_.note(
          "training diverged after step " +
          std::to_string(
              done_.training.curve.empty() ? 0
                                           : done_.training.curve.back().step) +
          ": choose a lower --learning-rate");
    }
    if (done_.trained && done_.training.tensors.empty()) {
      session_.note(
          "no step was better on held-out text than the start, which is kept");
    }
    teacher_.checkpoint.require_unchanged();
    if (ranks_.first()) {
      write();
      work_->remove();
    }
    ranks_.barrier();
  }

  void write() {
    ConversionSettings settings;
    settings.mtp = !options_.part && !options_.drop_mtp;
    settings.floats = [&](const std::string& name) -> std::optional<mx::array> {
      auto it = done_.training.tensors.find(name);
      return it == done_.training.tensors.end() ? std::nullopt
                                                : std::optional(it->second);
    };
    Conversion conversion(*student_, settings);
    AtomicFolder output(options_.mlx_path, options_.force);
    auto written = write_model(
        *student_,
        conversion,
        output.path(),
        options_.model,
        summary_of(done_, session_.report().data) + pins_.sentence(),
        session_.command(),
        session_.progress(),
        &teacher_);
    if (done_.trained) {
      write_file(output.path() / "dwq_log.csv", log_csv(done_.training));
    }
    output.commit();
    session_.describe_output(options_.mlx_path, written);
    session_.report().parameters = model_size(*student_).parameters;
  }

  Session& session_;
  const Model& teacher_;
  fs::path folder_;
  const DwqRunOptions& options_;
  const DwqOptions& own_;
  const ProcessGroup& ranks_;
  const ProcessGroup alone_{};
  ModelPart teacher_part_;
  PinnedWidths pins_;
  std::optional<Model> student_;
  DwqData data_;
  std::optional<WorkFolder> work_;
  Distilled done_;
};

RunReport run(Session& session, const DwqRunOptions& options) {
  check(session, options.dwq);
  if (options.dwq.grad_checkpoint) {
    session.note(kGradCheckpointNote);
  }
  const auto folder = session.model_folder(options.model);
  std::optional<fs::path> student;
  if (options.dwq.quantized_model) {
    student = session.model_folder(*options.dwq.quantized_model);
  }
  const auto teacher = open_model(folder, options.assume_family);
  dwq(session, teacher, folder, student, options);
  return session.finish();
}

}  // namespace

void dwq(
    Session& session,
    const Model& teacher,
    const fs::path& teacher_folder,
    const std::optional<fs::path>& student_folder,
    const DwqRunOptions& options,
    std::optional<DwqData> data) {
  Distillation(session, teacher, teacher_folder, student_folder, options)
      .run(std::move(data));
}

Command dwq_command() {
  return make_command<DwqRunOptions>(
      "dwq",
      "Improve a quantized model by distillation: its scales and biases are "
      "trained towards the full model",
      "  pennyweight dwq --model Qwen/Qwen3-0.6B --mlx-path out\n"
      "  pennyweight dwq --model folder --quantized-model gptq_out --mlx-path "
      "out\n    --data-path notes.txt --num-samples 512 --max-seq-length 513\n"
      "  mpirun -n 2 pennyweight dwq --model folder --mlx-path out\n",
      run);
}

}  // namespace pennyweight
