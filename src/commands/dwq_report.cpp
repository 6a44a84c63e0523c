#include "commands/dwq_report.h"

#include "core/error.h"
#include "core/json.h"
#include "core/text.h"

namespace pennyweight {

std::vector<std::string> untrained_modules(const Model& student) {
  std::vector<std::string> untrained;
  for (const ModuleSpec& module : list_stored_modules(student.spec)) {
    auto it = student.quantized.find(module.path);
    const bool packed = it != student.quantized.end();
    if (packed && is_trained(it->second)) {
      continue;
    }
    untrained.push_back(
        module.path + ": " +
        (!packed                           ? "in floats"
             : it->second.mode != "affine" ? "its scales are no floats"
                                           : "8 bits"));
  }
  return untrained;
}

void report_distillation(
    const Distilled& done,
    const DwqOptions& options,
    RunReport& report) {
  const auto sequences = std::to_string(done.train_sequences);
  const auto held_out = std::to_string(done.held_out_sequences);
  if (!done.trained) {
    if (options.targets_only) {
      report.text += "targets of " + sequences + " and " + held_out +
          " sequences are in " + shown(*options.target_dir) + "\n";
    }
    return;
  }
  const auto& training = done.training;
  auto& figures = report.figures;
  figures["learning_rate"] = training.rate;
  figures["trial"] = training.trial;
  figures["start_kl"] = training.start;
  figures["best_kl"] = training.best;
  figures["best_step"] = training.best_step;
  figures["resumed_steps"] = training.resumed_steps;
  figures["tokens_per_second"] =
      training.seconds > 0 ? double(training.tokens) / training.seconds : 0.0;
  figures["curve"] = to_json(training.curve);
  report.text += "data: " + shown(report.data) + "; " + sequences +
      " sequences, " + held_out + " held out\n" +
      figures["trained_parameters"].dump() +
      " scales and biases trained, learning rate " +
      fixed(training.rate * 1e6, 1) + "e-6\nheld-out KL " +
      fixed(training.start, 4) + " -> " + fixed(training.best, 4) +
      (training.best_step > 0
           ? ", best after step " + std::to_string(training.best_step)
           : ": no step was better than the start, which is kept") +
      "\n";
}

std::string summary_of(const Distilled& done, const std::string& data) {
  if (done.training.tensors.empty()) {
    return "DWQ kept the quantized model as it was, at %bpw bits a weight, "
           "scales included.";
  }
  return "Scales and biases distilled from the full model (DWQ) at %bpw bits a "
         "weight, scales included, on " +
      std::to_string(done.train_sequences) + " sequences of " + data + ".";
}

}  // namespace pennyweight
