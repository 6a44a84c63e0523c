#pragma once

#include <string>
#include <vector>

#include "method/dwq/options.h"
#include "method/dwq/train.h"
#include "run/session.h"

namespace pennyweight {

/// What a distillation has come to.
struct Distilled {
  int64_t train_sequences = 0;
  int64_t held_out_sequences = 0;
  bool trained = false;  // false: there is nothing to train
  TrainResult training;
};

/// Modules of the student that are not trained, with the reason.
std::vector<std::string> untrained_modules(const Model& student);

/// Figures and text of the run's report.
void report_distillation(
    const Distilled& done,
    const DwqOptions& options,
    RunReport& report);

/// A sentence for the model card, in which %bpw stands for the bits a weight.
/// `data` names the text.
std::string summary_of(const Distilled& done, const std::string& data);

}  // namespace pennyweight
