#pragma once

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "core/machine_load.h"
#include "core/progress.h"
#include "core/time_left.h"

namespace pennyweight {

/// Times calls, and keeps how far samples of one call lie apart.
class RateSampler {
 public:
  RateSampler() = default;
  /// Reports each sample as one of `stage`, so that a user can stop them.
  RateSampler(ProgressFn progress, std::string stage)
      : progress_(std::move(progress)), stage_(std::move(stage)) {}

  /// Seconds of f(): the median of some calls, without the first where they are
  /// short; the only one's where that is long.
  template <class F>
  double seconds(F&& f) {
    return seconds_of([&] { return once(f); });
  }
  /// The same of what f says that it took.
  template <class F>
  double seconds_of(F&& f) {
    look();
    const double first = f();
    if (first > kLong) {
      return first;
    }
    std::vector<double> samples;
    double sum = 0;
    if (first > kShort) {
      samples.push_back(first);  // has warmed up by itself
    }
    while (samples.size() < kFewest ||
           (samples.size() < kMost && sum < kEnough)) {
      look();
      samples.push_back(f());
      sum += samples.back();
    }
    if (sum > kCounts) {
      spreads_.push_back(spread_of(samples));
    }
    std::sort(samples.begin(), samples.end());
    return samples[samples.size() / 2];
  }

  template <class F>
  static double once(F&& f) {
    const auto start = std::chrono::steady_clock::now();
    f();
    return seconds_since(start);
  }

  /// The median of all samples'.
  double spread() const {
    if (spreads_.empty()) {
      return 0;
    }
    auto sorted = spreads_;
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }

 private:
  static constexpr double kLong = 0.12;
  static constexpr double kShort = 0.03;
  static constexpr double kEnough = 0.05;
  static constexpr double kCounts = 0.004;  // less is the clock's and noise
  static constexpr size_t kFewest = 3;
  static constexpr size_t kMost = 7;

  void look() {
    report(progress_, {stage_, ++taken_, 0, "samples"});
  }

  std::vector<double> spreads_;
  ProgressFn progress_;
  std::string stage_;
  int64_t taken_ = 0;
};

}  // namespace pennyweight
