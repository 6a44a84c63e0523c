#include "pipeline/time_limit.h"

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

std::string fit_costs_into_time(
    const Model& model,
    int sequence_length,
    double rate,
    double seconds,
    StageSizes& sizes) {
  // Of a short time a fifth: GPTQ gains more by a sequence than widths do.
  constexpr double kShare = 0.2;
  constexpr int kFewestSequences = 4;
  const auto time = [&](int sequences) {
    auto tried = sizes;
    tried.cost_sequences = sequences;
    return plan_time(model, tried, sequence_length, rate);
  };
  Cuts cuts;
  if (time(sizes.cost_sequences).total() > seconds) {
    const int to =
        most_fitting(sizes.cost_sequences, kFewestSequences, [&](int count) {
          return time(count).costs <= kShare * seconds;
        });
    cuts.cut("sequences of costs", sizes.cost_sequences, to);
  }
  return cuts.text();
}

std::string fit_into_time(
    const Model& model,
    int sequence_length,
    double rate,
    double seconds,
    StageSizes& sizes) {
  constexpr int kFewestFitted = 8;
  constexpr int kFewestSteps = 20;
  constexpr int kFewestSequences = 32;
  const auto plan = plan_time(model, sizes, sequence_length, rate);
  if (plan.after_costs() <= seconds) {
    return {};
  }
  Cuts cuts;
  // Steps of learned rounding, whose walk is GPTQ's again, and distillation
  // share what GPTQ leaves; without enough steps all is distillation's.
  double left = seconds - plan.rest - plan.gptq;
  if (sizes.learn_steps > 0) {
    const double steps = plan.learned - plan.gptq;
    const double share = (left - plan.gptq) / (steps + plan.dwq);
    const int to = scaled(sizes.learn_steps, share);
    cuts.cut(
        "steps of learned rounding",
        sizes.learn_steps,
        to < kFewestSteps ? 0 : to);
    if (sizes.learn_steps > 0) {
      left -= plan.gptq + std::min(share, 1.0) * steps;
    }
  }
  if (sizes.dwq_sequences > 0 && left < plan.dwq) {
    sizes.dwq_sequences *= sizes.dwq_epochs;
    sizes.dwq_epochs = 1;
    // Trials of the rate do not shrink as training does.
    const double each = plan.dwq / trained_sequences(sizes);
    auto shorter = sizes;
    while (shorter.dwq_sequences >= kFewestSequences &&
           trained_sequences(shorter) * each > left) {
      --shorter.dwq_sequences;
    }
    cuts.cut(
        "sequences of distillation",
        sizes.dwq_sequences,
        shorter.dwq_sequences < kFewestSequences ? 0 : shorter.dwq_sequences);
  }
  const auto after_costs = [&](int sequences) {
    auto tried = sizes;
    tried.gptq_sequences = sequences;
    return plan_time(model, tried, sequence_length, rate).after_costs();
  };
  const int fitted =
      most_fitting(sizes.gptq_sequences, kFewestFitted, [&](int count) {
        return after_costs(count) <= seconds;
      });
  cuts.cut("sequences of GPTQ", sizes.gptq_sequences, fitted);
  const double after = after_costs(fitted);
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
    throw Error(
        ErrorCode::invalid_argument,
        "options",
        option + " '" + one_line(text, 40) +
            "' is no time such as 90s, 30m or 2h");
  }
  return value * factor;
}

void TimeLimit::costs_took(double seconds, const StageSizes& sizes) {
  const double planned = plan_time(model_, sizes, length_, rate_).costs;
  if (planned > 0) {
    pace_ = std::clamp(seconds / planned, 0.7, 3.0);
  }
}

}  // namespace pennyweight
