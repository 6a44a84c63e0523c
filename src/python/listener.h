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

/// Hands the events of a run to Python, and learns there whether the run is to
/// stop. It is made and destroyed with the GIL held, and called without it,
/// from any thread.
class Listener {
 public:
  /// `on_event` is None, or is called with (stage, done, total, unit, message,
  /// left) for each event that is no warning; it stops the run by returning
  /// False. `on_warning` is called with (stage, message), once for each
  /// message.
  Listener(nb::object on_event, nb::object on_warning);

  /// Hands on no more events or warnings from now on.
  void keep_silent();

  /// Takes an event; false says that the run is to stop. Python's own handlers
  /// of signals run here, so that Ctrl-C stops a run at its next event and the
  /// process keeps the handler that it has.
  bool hear(const ProgressEvent& event);

  /// Throws the exception again that a handler or a function has raised, if
  /// any.
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
  std::optional<nb::python_error> raised_;  // is used with the GIL held
};

}  // namespace pennyweight::python
