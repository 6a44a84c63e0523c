#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/json_fwd.h"
#include "core/progress.h"
#include "method/dwq/distiller.h"
#include "method/state_store.h"

namespace pennyweight {

struct TrainSettings {
  /// The peak; absent: chosen by a short trial.
  std::optional<double> learning_rate;
  double temperature = 2;
};

/// One step done, and perhaps a measure on held-out text after it.
struct TrainPoint {
  int64_t step = 0;    // steps done
  int64_t tokens = 0;  // trained on so far
  double rate = 0;
  double loss = 0;  // mean KL at the temperature, of the step's batch
  double norm = 0;  // of its gradient, before clipping
  std::optional<double> held_out{};  // mean KL at temperature 1
};

struct TrainResult {
  double rate = 0;                      // the peak
  std::map<std::string, double> trial;  // held-out KL by rate tried
  double start = 0;                     // held-out KL
  double best = 0;
  int64_t best_step = 0;  // 0: the start
  std::vector<TrainPoint> curve;
  bool diverged = false;  // the last steps' loss was not finite any more
  /// By tensor name, what was best; empty: the start.
  std::map<std::string, mx::array> tensors;
  int64_t resumed_steps = 0;
  /// What this process took for its steps, the teacher's part in them
  /// included, measures left out.
  double seconds = 0;
  int64_t tokens = 0;  // of these steps, over all processes
};

Json to_json(const std::vector<TrainPoint>& curve);

/// Of the start and each step: step, tokens, learning_rate, loss,
/// gradient_norm and held_out_kl, empty where it was not measured.
std::string log_csv(const TrainResult& training);

/// Steps between two measures on held-out text, and those of a trial of a rate.
int64_t measure_interval(int64_t steps);

/// Steps that choosing the rate for `steps` takes, typically.
int64_t rate_trial_steps(int64_t steps);

/// A run's data and targets.
struct TrainData {
  const DistillSplit& train;
  const DistillSplit& valid;
  Targets& train_targets;
  Targets& valid_targets;
};

/// Trains scales and biases of `student`, one step a batch, measures it on
/// held-out text on the way and keeps what was best there. Steps done go to
/// `work` at each measure, and a run whose `work` has some goes on from there
/// to the same bytes. One that diverges ends there. Errors as Distiller's, of
/// the start, and StateStore's.
TrainResult train_dwq(
    Student& student,
    Distiller& distiller,
    const ModelPart& part,
    const TrainData& data,
    const TrainSettings& settings,
    StateStore& work,
    const ProgressFn& progress);

}  // namespace pennyweight
