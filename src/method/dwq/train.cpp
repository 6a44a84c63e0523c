#include "method/dwq/train.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/error.h"
#include "core/json.h"
#include "core/text.h"
#include "core/time_left.h"

namespace pennyweight {

namespace {

constexpr int64_t kChunkTokens = 4096;
// Bounds of the steps between two measures on held-out text.
constexpr int64_t kFewest = 10;
constexpr int64_t kMost = 50;
// In units of the student's mean scale; tried from this one outwards.
constexpr double kRates[] = {2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2};
constexpr size_t kFirstRate = 3;
// Two neighbours of the best, and one or two on the way to it.
constexpr int64_t kTypicalTrials = 4;

using Clock = std::chrono::steady_clock;

class Trainer {
 public:
  Trainer(
      Student& student,
      Distiller& distiller,
      const ModelPart& part,
      const TrainData& data,
      const TrainSettings& settings,
      StateStore& work,
      const ProgressFn& progress)
      : student_(student),
        distiller_(distiller),
        part_(part),
        data_(data),
        settings_(settings),
        work_(work),
        progress_(progress),
        steps_(static_cast<int64_t>(data.train.batches.size())),
        interval_(measure_interval(steps_)) {
    for (size_t i = 0; i < data.valid.batches.size(); ++i) {
      for (auto& chunk : cut_batch(data.valid, i, part, kChunkTokens)) {
        held_out_.push_back(std::move(chunk));
      }
    }
  }

  TrainResult run() {
    data_.valid_targets.prepare(held_out_);
    int64_t done = 0;
    if (work_.state()) {
      done = resume();
    } else {
      result_.start = result_.best = measure();
      say("held-out KL at the start " + std::to_string(result_.start));
      if (settings_.learning_rate) {
        result_.rate = *settings_.learning_rate;
      } else {
        find_rate();
      }
    }
    result_.resumed_steps = done;
    try {
      while (done < steps_) {
        done = train(done, std::min(steps_, done + interval_), steps_);
        judge(done);
        save(done);
      }
    } catch (const Error& error) {
      if (error.code() != ErrorCode::numeric) {
        throw;
      }
      result_.diverged = true;
    }
    return std::move(result_);
  }

 private:
  void say(const std::string& text) const {
    report(progress_, {"dwq", 0, 0, "", text});
  }

  double measure() {
    return distiller_.measure(held_out_, data_.valid_targets);
  }

  /// Steps first .. end - 1 of a schedule of `steps`; gives `end`.
  int64_t train(int64_t first, int64_t end, int64_t steps) {
    const auto start = Clock::now();
    std::vector<DistillChunk> chunks;
    std::vector<size_t> begins{0};
    for (int64_t i = first; i < end; ++i) {
      for (auto& chunk : cut_batch(
               data_.train, static_cast<size_t>(i), part_, kChunkTokens)) {
        chunks.push_back(std::move(chunk));
      }
      begins.push_back(chunks.size());
    }
    data_.train_targets.prepare(chunks);
    for (int64_t i = first; i < end; ++i) {
      const auto at = static_cast<size_t>(i - first);
      TrainPoint point{
          .step = i + 1,
          .tokens = result_.curve.empty() ? 0 : result_.curve.back().tokens,
          .rate = scheduled_rate(result_.rate, i, steps)};
      const auto own =
          std::span(chunks).subspan(begins[at], begins[at + 1] - begins[at]);
      const int64_t tokens = distiller_.count_tokens(own);
      point.tokens += tokens;
      point.loss = distiller_.gradients(
          own, data_.train_targets, begins[at], settings_.temperature);
      point.norm = student_.reduce();
      student_.update({point.rate, clip_.factor(point.norm), i + 1});
      result_.tokens += tokens;
      result_.curve.push_back(point);
      report(
          progress_,
          {"dwq", i + 1, steps, "steps", "loss " + three_digits(point.loss)});
    }
    result_.seconds += seconds_since(start);
    return end;
  }

  void judge(int64_t done) {
    const double kl = measure();
    result_.curve.back().held_out = kl;
    say("held-out KL after " + std::to_string(done) + " steps " +
        std::to_string(kl));
    if (kl < result_.best) {
      result_.best = kl;
      result_.best_step = done;
      result_.tensors = student_.result();
    }
  }

  // Some steps from the start at each rate; the best on held-out text.
  void find_rate() {
    std::map<size_t, double> found;
    const auto attempt = [&](size_t i) {
      if (!found.contains(i)) {
        const double rate = kRates[i] * student_.unit();
        found[i] = try_rate(rate, interval_);
        if (std::isinf(found[i])) {
          say("diverges at rate " + three_digits(rate));
          return found[i];
        }
        result_.trial[three_digits(rate)] = found[i];
        say("held-out KL after " + std::to_string(interval_) +
            " steps at rate " + three_digits(rate) + " " +
            std::to_string(found[i]));
      }
      return found[i];
    };
    size_t best = kFirstRate;
    for (int way : {1, -1}) {
      for (;;) {
        const auto next = best + static_cast<size_t>(way);
        if (next >= std::size(kRates) || attempt(next) >= attempt(best)) {
          break;
        }
        best = next;
      }
    }
    result_.rate = kRates[best] * student_.unit();
  }

  // Infinite where it diverges.
  double try_rate(double rate, int64_t steps) {
    const TrainResult before = result_;
    result_.rate = rate;
    clip_ = GradientClip();
    double kl = INFINITY;
    try {
      train(0, steps, steps);
      kl = measure();
    } catch (const Error& error) {
      if (error.code() != ErrorCode::numeric) {
        throw;
      }
    }
    student_.reset();
    clip_ = GradientClip();
    result_ = before;
    return kl;
  }

  void save(int64_t done) {
    std::map<std::string, mx::array> tensors;
    student_.save([&](const std::string& name, const mx::array& value) {
      if (part_.ranks->first()) {
        tensors.emplace("train." + name, value);
      }
    });
    for (const auto& [name, tensor] : result_.tensors) {
      tensors.emplace("best." + name, tensor);
    }
    Json figures{
        {"rate", result_.rate},
        {"trial", result_.trial},
        {"start", result_.start},
        {"best", result_.best},
        {"best_step", result_.best_step},
        {"clip", clip_.mean()},
        {"curve", to_json(result_.curve)}};
    if (part_.ranks->first()) {
      work_.save_state(done, tensors, figures);
    }
    part_.ranks->barrier();
  }

  int64_t resume() {
    const int64_t done = *work_.state();
    std::map<std::string, mx::array> own;
    for (const auto& [name, tensor] : work_.load_state()) {
      if (name.starts_with("train.")) {
        own.emplace(name.substr(6), tensor);
      } else {
        result_.tensors.emplace(name.substr(5), tensor);
      }
    }
    student_.restore(own);
    const auto figures = work_.load_state_report();
    result_.rate = figures.at("rate").get<double>();
    result_.trial = figures.at("trial").get<std::map<std::string, double>>();
    result_.start = figures.at("start").get<double>();
    result_.best = figures.at("best").get<double>();
    result_.best_step = figures.at("best_step").get<int64_t>();
    clip_ = GradientClip(figures.at("clip").get<double>());
    for (const auto& entry : figures.at("curve")) {
      TrainPoint point{
          .step = entry.at("step").get<int64_t>(),
          .tokens = entry.at("tokens").get<int64_t>(),
          .rate = entry.at("learning_rate").get<double>(),
          .loss = entry.at("loss").get<double>(),
          .norm = entry.at("gradient_norm").get<double>()};
      if (!entry.at("held_out_kl").is_null()) {
        point.held_out = entry.at("held_out_kl").get<double>();
      }
      result_.curve.push_back(point);
    }
    say("going on after " + std::to_string(done) + " of " +
        std::to_string(steps_) + " steps");
    return done;
  }

  Student& student_;
  Distiller& distiller_;
  const ModelPart& part_;
  const TrainData& data_;
  const TrainSettings& settings_;
  StateStore& work_;
  const ProgressFn& progress_;
  int64_t steps_;
  int64_t interval_;
  std::vector<DistillChunk> held_out_;
  GradientClip clip_;
  TrainResult result_;
};

}  // namespace

Json to_json(const std::vector<TrainPoint>& curve) {
  Json json = Json::array();
  for (const auto& point : curve) {
    json.push_back(
        {{"step", point.step},
         {"tokens", point.tokens},
         {"learning_rate", point.rate},
         {"loss", point.loss},
         {"gradient_norm", point.norm},
         {"held_out_kl", point.held_out ? Json(*point.held_out) : Json()}});
  }
  return json;
}

int64_t measure_interval(int64_t steps) {
  return std::min(steps, std::clamp(steps / 10, kFewest, kMost));
}

int64_t rate_trial_steps(int64_t steps) {
  return kTypicalTrials * measure_interval(steps);
}

TrainResult train_dwq(
    Student& student,
    Distiller& distiller,
    const ModelPart& part,
    const TrainData& data,
    const TrainSettings& settings,
    StateStore& work,
    const ProgressFn& progress) {
  return Trainer(student, distiller, part, data, settings, work, progress)
      .run();
}

std::string log_csv(const TrainResult& training) {
  std::string text =
      "step,tokens,learning_rate,loss,gradient_norm,held_out_kl\n";
  text += formatted("0,0,,,,%.6g\n", training.start);
  for (const auto& point : training.curve) {
    text += std::to_string(point.step) + "," + std::to_string(point.tokens) +
        formatted(",%.6g,%.6g,%.6g,", point.rate, point.loss, point.norm) +
        (point.held_out ? formatted("%.6g", *point.held_out) : "") + "\n";
  }
  return text;
}

}  // namespace pennyweight
