#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/progress.h"

namespace pennyweight {

/// What two processes tell each other through a socket: a kind and its text.
struct Frame {
  static constexpr char kRequest = 'Q';
  static constexpr char kAnswer = 'A';
  static constexpr char kProgress = 'P';
  static constexpr char kFailure = 'F';

  char kind = '\0';
  std::string text;
};

/// False where the other side is gone.
bool send_frame(int socket, char kind, std::string_view text);

/// False at the end. `idle` is called where a signal interrupts the wait.
bool receive_frame(
    int socket,
    Frame& frame,
    const std::function<void()>& idle = [] {});

/// An event as a frame's text, and back.
std::string frame_text(const ProgressEvent& event);
ProgressEvent event_of(const std::string& text);

/// An Error as a frame's text, `what` beginning with "[where] ", and thrown
/// again.
std::string frame_text(ErrorCode code, const std::string& what);
[[noreturn]] void throw_failure(const std::string& text);

}  // namespace pennyweight
