#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

namespace pennyweight {

inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

/// How long parts of a task that do not all take alike will go on: by what
/// those that are done took, beside what was planned for them. Plans may be in
/// any unit.
class TimeLeft {
 public:
  explicit TimeLeft(std::vector<double> planned)
      : planned_(std::move(planned)), last_(Clock::now()) {}

  /// The next part is done. One that was `known`, gone on with and not made,
  /// says nothing of the others.
  void done(bool known = false) {
    const auto now = Clock::now();
    took(std::chrono::duration<double>(now - last_).count(), known);
    last_ = now;
  }
  /// As done(), of a part that took so many seconds.
  void took(double seconds, bool known = false) {
    if (!known && next_ < planned_.size()) {
      took_ += seconds;
      spent_ += planned_[next_];
    }
    ++next_;
  }
  /// Of all parts that are not done; absent before one is.
  std::optional<double> seconds() const {
    if (spent_ <= 0) {
      return std::nullopt;
    }
    double left = 0;
    for (size_t i = next_; i < planned_.size(); ++i) {
      left += planned_[i];
    }
    return left * took_ / spent_;
  }

 private:
  using Clock = std::chrono::steady_clock;

  std::vector<double> planned_;
  Clock::time_point last_;
  size_t next_ = 0;
  double spent_ = 0;  // of the plan
  double took_ = 0;   // seconds
};

}  // namespace pennyweight
