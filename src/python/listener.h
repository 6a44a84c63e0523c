#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "core/progress.h"

namespace pennyweight::python {

namespace nb = nanobind;

/// Hands what a run reports to Python, and hears there whether it is to stop.
/// Made and destroyed with the GIL held; called without it, from any thread.
class Listener {
 public:
  /// `on_event` is None or called with (stage, done, total, unit, message,
  /// left) for each event that is no warning; False from it stops the run.
  /// `on_warning` is called with (stage, message), once for each message.
  Listener(nb::object on_event, nb::object on_warning);

  /// From here on events and warnings are no longer handed on.
  void keep_silent();

  /// Python's own handlers of signals run here, so that Ctrl-C stops a run at
  /// its next event and the process keeps the handler that it has.
  bool hear(const ProgressEvent& event);

  /// Throws again what a handler or a function has raised, if one has.
  void rethrow() const;

 private:
  bool is_due(const ProgressEvent& event);

  nb::object on_event_;
  nb::object on_warning_;
  bool silent_ = false;
  std::mutex mutex_;  // of warnings_
  std::set<std::string> warnings_;
  std::atomic<int64_t> next_look_{0};  // nanoseconds of the steady clock
  std::atomic<bool> stopped_{false};
  std::optional<nb::python_error> raised_;  // the GIL's
};

}  // namespace pennyweight::python
