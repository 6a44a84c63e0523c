#include "run/time/time_limit.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/bytes.h"
#include "core/error.h"

namespace pennyweight {

namespace {

/// What is told of cuts.
class Cuts {
 public:
  void cut(const char* what, int& value, int to) {
    if (value != to) {
      text_ += std::string(", ") + what + " were cut from " +
          std::to_string(value) + " to " + std::to_string(to);
    }
    value = to;
  }
  void add(const std::string& text) {
    text_ += text;
  }
  std::string text() const {
    return text_.empty() ? "" : "to keep --time-limit" + text_;
  }

 private:
  std::string text_;
};

int scaled(int value, double share) {
  return static_cast<int>(std::floor(std::clamp(share, 0.0, 1.0) * value));
}

/// The most of up to `value` that fits, but `least` or, where that is less,
/// `value`.
template <class Fits>
int most_fitting(int value, int least, Fits&& fits) {
  while (value > least && !fits(value)) {
    --value;
  }
  return value;
}

}  // namespace

std::string
fit_costs_into_time(const TimeBasis& basis, double seconds, StageSizes& sizes) {
  // Of a short time a fifth: GPTQ gains more by a sequence than widths do.
  constexpr double kShare = 0.2;
  constexpr int kFewestSequences = 4;
  const auto time = [&](int sequences) {
    auto tried = sizes;
    tried.cost_sequences = sequences;
    return basis.plan(tried);
  };
  Cuts cuts;
  if (time(sizes.cost_sequences).from(PlannedStage::costs) > seconds) {
    const int to =
        most_fitting(sizes.cost_sequences, kFewestSequences, [&](int count) {
          return time(count).costs <= kShare * seconds;
        });
    cuts.cut("sequences of costs", sizes.cost_sequences, to);
  }
  return cuts.text();
}

namespace {

/// Cuts what comes after GPTQ; `left` is what GPTQ and the report leave.
void cut_training(
    const TimeBasis& basis,
    PlannedStage next,
    double left,
    StageSizes& sizes,
    Cuts& cuts) {
  constexpr int kFewestSteps = 20;
  constexpr int kFewestSequences = 32;
  const auto plan = basis.plan(sizes);
  // Steps of learned rounding, whose walk is GPTQ's again, and distillation
  // share what GPTQ leaves; without enough steps all is distillation's.
  if (sizes.learn_steps > 0 && next <= PlannedStage::learned) {
    const double steps = plan.learned - plan.gptq;
    const double share = (left - plan.gptq) / (steps + plan.dwq);
    const int to = scaled(sizes.learn_steps, share);
    cuts.cut(
        "steps of learned rounding",
        sizes.learn_steps,
        to < kFewestSteps ? 0 : to);
    left -= basis.plan(sizes).learned;
  }
  if (sizes.dwq_sequences > 0 && left < plan.dwq) {
    sizes.dwq_sequences *= sizes.dwq_epochs;
    sizes.dwq_epochs = 1;
    // Trials of the rate do not shrink as training does.
    auto shorter = sizes;
    while (shorter.dwq_sequences >= kFewestSequences &&
           basis.plan(shorter).dwq > left) {
      --shorter.dwq_sequences;
    }
    cuts.cut(
        "sequences of distillation",
        sizes.dwq_sequences,
        shorter.dwq_sequences < kFewestSequences ? 0 : shorter.dwq_sequences);
  }
}

}  // namespace

std::string fit_into_time(
    const TimeBasis& basis,
    PlannedStage next,
    double seconds,
    StageSizes& sizes) {
  constexpr int kFewestFitted = 8;
  const auto plan = basis.plan(sizes);
  if (plan.from(next) <= seconds) {
    return {};
  }
  Cuts cuts;
  const double fixed = plan.report +
      (next <= PlannedStage::nearest ? plan.nearest : 0) +
      (next <= PlannedStage::gptq ? plan.gptq : 0);
  cut_training(basis, next, seconds - fixed, sizes, cuts);
  if (next <= PlannedStage::gptq) {
    const int fitted =
        most_fitting(sizes.gptq_sequences, kFewestFitted, [&](int count) {
          auto tried = sizes;
          tried.gptq_sequences = count;
          return basis.plan(tried).from(next) <= seconds;
        });
    cuts.cut("sequences of GPTQ", sizes.gptq_sequences, fitted);
  }
  const double after = basis.plan(sizes).from(next);
  if (after > 1.05 * seconds) {
    cuts.add(
        ", and it will be passed: what is left takes about " +
        std::to_string(int64_t(after)) + " s");
  }
  return cuts.text();
}

double parse_seconds(const std::string& text, const std::string& option) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, failed] = std::from_chars(text.data(), end, value);
  const std::string unit(stop, end);
  const double factor = unit.empty() || unit == "s" ? 1
      : unit == "m" || unit == "min"                ? 60
      : unit == "h"                                 ? 3600
                                                    : 0;
  if (failed != std::errc() || !(value * factor > 0) || !std::isfinite(value)) {
    throw argument_error(
        "options",
        option + " '" + one_line(text, 40) +
            "' is no time such as 90s, 30m or 2h");
  }
  return value * factor;
}

void TimeLimit::took(
    PlannedStage stage,
    double seconds,
    const StageSizes& sizes) {
  planned_ += basis().plan(sizes).of(stage);
  took_ += seconds;
}

double TimeLimit::pace() const {
  return planned_ > 0 ? std::clamp(took_ / planned_, 0.5, 4.0) : 1;
}

}  // namespace pennyweight
