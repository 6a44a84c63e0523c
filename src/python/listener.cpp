#include "python/listener.h"

#include <chrono>
#include <utility>

#include "python/text.h"

namespace pennyweight::python {

namespace {

// How often signals are looked for: soon enough for Ctrl-C, and rarely enough
// that taking the GIL costs nothing.
constexpr int64_t kBetweenLooks = 20'000'000;  // nanoseconds

int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

Listener::Listener(nb::object on_event, nb::object on_warning)
    : on_event_(std::move(on_event)), on_warning_(std::move(on_warning)) {}

void Listener::keep_silent() {
  silent_ = true;
}

// Whether Python is to be told of the event, or it is time to look for signals.
bool Listener::is_due(const ProgressEvent& event) {
  if (event.warning) {
    std::lock_guard lock(mutex_);
    // Several stages of a run open the same folders, and warn of the same.
    return warnings_.insert(event.message).second;
  }
  const auto time = now();
  if ((on_event_.is_none() || silent_) && time < next_look_) {
    return false;
  }
  next_look_ = time + kBetweenLooks;
  return true;
}

bool Listener::hear(const ProgressEvent& event) {
  if (stopped_ || !is_due(event)) {
    return !stopped_;
  }
  nb::gil_scoped_acquire gil;
  try {
    if (PyErr_CheckSignals() != 0) {
      throw nb::python_error();
    }
    if (silent_) {
      return true;
    }
    if (event.warning) {
      on_warning_(event.stage.c_str(), to_str(event.message));
    } else if (!on_event_.is_none()) {
      const nb::object left = event.left ? nb::cast(*event.left) : nb::none();
      const nb::object answer = on_event_(
          event.stage.c_str(),
          event.done,
          event.total,
          event.unit.c_str(),
          to_str(event.message),
          left);
      stopped_ = stopped_ || answer.is(nb::handle(Py_False));
    }
  } catch (const nb::python_error& error) {
    if (!stopped_.exchange(true)) {
      raised_.emplace(error);
    }
  }
  return !stopped_;
}

void Listener::rethrow() const {
  if (raised_) {
    throw nb::python_error(*raised_);
  }
}

}  // namespace pennyweight::python
