#include "text/frames.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstdint>

#include "core/json.h"
#include "core/json_text.h"

namespace pennyweight {

namespace {

constexpr uint64_t kLongest = uint64_t{1} << 36;
constexpr const char* kOther = "the text's process";

bool send_all(int socket, const void* data, size_t bytes) {
  const auto* from = static_cast<const char*>(data);
#ifdef MSG_NOSIGNAL
  constexpr int kFlags = MSG_NOSIGNAL;
#else
  constexpr int kFlags = 0;  // SO_NOSIGPIPE is set
#endif
  while (bytes > 0) {
    const ssize_t sent = ::send(socket, from, bytes, kFlags);
    if (sent < 0 && errno == EINTR) {
      continue;
    }
    if (sent <= 0) {
      return false;
    }
    from += sent;
    bytes -= static_cast<size_t>(sent);
  }
  return true;
}

/// False at the end; `idle` is called where a signal interrupts the wait.
bool receive_all(
    int socket,
    void* data,
    size_t bytes,
    const std::function<void()>& idle) {
  auto* to = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t got = ::recv(socket, to, bytes, 0);
    if (got < 0 && errno == EINTR) {
      idle();
      continue;
    }
    if (got <= 0) {
      return false;
    }
    to += got;
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

}  // namespace

bool send_frame(int socket, char kind, std::string_view text) {
  const uint64_t size = text.size();
  return send_all(socket, &kind, 1) && send_all(socket, &size, sizeof(size)) &&
      send_all(socket, text.data(), text.size());
}

bool receive_frame(
    int socket,
    Frame& frame,
    const std::function<void()>& idle) {
  uint64_t size = 0;
  if (!receive_all(socket, &frame.kind, 1, idle) ||
      !receive_all(socket, &size, sizeof(size), idle) || size > kLongest) {
    return false;
  }
  frame.text.resize(size);
  return receive_all(socket, frame.text.data(), frame.text.size(), idle);
}

std::string frame_text(const ProgressEvent& event) {
  Json json{
      {"stage", event.stage},
      {"done", event.done},
      {"total", event.total},
      {"unit", event.unit},
      {"message", event.message},
      {"warning", event.warning}};
  if (event.left) {
    json["left"] = *event.left;
  }
  return to_text(json);
}

ProgressEvent event_of(const std::string& text) {
  const auto json = parse_json(text, kOther);
  ProgressEvent event{
      json.at("stage"),
      json.at("done"),
      json.at("total"),
      json.at("unit"),
      json.at("message"),
      json.at("warning")};
  if (json.contains("left")) {
    event.left = json.at("left").get<double>();
  }
  return event;
}

std::string frame_text(ErrorCode code, const std::string& what) {
  return to_text({{"code", static_cast<int>(code)}, {"text", what}});
}

void throw_failure(const std::string& text) {
  const auto json = parse_json(text, kOther);
  const auto code = static_cast<ErrorCode>(json.at("code").get<int>());
  const auto what = json.at("text").get<std::string>();
  const size_t end = what.find("] ");
  if (!what.starts_with("[") || end == std::string::npos) {
    throw Error(code, "text", what);
  }
  throw Error(code, what.substr(1, end - 1), what.substr(end + 2));
}

}  // namespace pennyweight
