#include "text/wall.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <new>

#include "core/error.h"
#include "core/json.h"
#include "text/rust_text.h"

namespace pennyweight {

namespace {

constexpr int kMemoryPassed = 71;  // exit codes behind the wall
constexpr int kMemoryRefused = 72;
constexpr char kAnswer = 'A';
constexpr char kProgress = 'P';
constexpr char kFailure = 'F';
constexpr uint64_t kLongest = uint64_t{1} << 36;
constexpr int64_t kMiB = int64_t{1} << 20;

// A second of processor time is far more than any of these needs: templates
// render a message in 0.1 ms, tokenizers read more than 1 MB a second.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double kSlower = 5;
#else
constexpr double kSlower = 1;
#endif
constexpr double kSeconds = 3;
constexpr double kSecondsASection = 0.005 * kSlower;
constexpr double kSecondsAByte = 4e-6 * kSlower;
constexpr int64_t kMemory = 96 * kMiB;

/// Bytes of memory that a byte of input may take. Tokenizers take some 125
/// while they work and 12 to 20 of their file's; see docs/performance.md.
int64_t memory_a_byte(Wall::Part part) {
  switch (part) {
    case Wall::Part::load:
      return 32;
    case Wall::Part::tokenize:
      return 192;
    case Wall::Part::render:
    case Wall::Part::read:
      return 64;
  }
  return 64;
}

double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}

void set_timer(double seconds) {
  itimerval timer{};
  timer.it_value.tv_sec = static_cast<time_t>(seconds);
  timer.it_value.tv_usec =
      static_cast<suseconds_t>(1e6 * (seconds - double(timer.it_value.tv_sec)));
  ::setitimer(ITIMER_PROF, &timer, nullptr);
}

template <size_t kSize>
void copy_text(char (&to)[kSize], std::string_view from) {
  const size_t size = std::min(from.size(), kSize - 1);
  std::memcpy(to, from.data(), size);
  to[size] = '\0';
}

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

struct Frame {
  char kind = '\0';
  std::string text;
};

bool send_frame(int socket, char kind, std::string_view text) {
  const uint64_t size = text.size();
  return send_all(socket, &kind, 1) && send_all(socket, &size, sizeof(size)) &&
      send_all(socket, text.data(), text.size());
}

bool receive_frame(
    int socket,
    Frame& frame,
    const std::function<void()>& idle = [] {}) {
  uint64_t size = 0;
  if (!receive_all(socket, &frame.kind, 1, idle) ||
      !receive_all(socket, &size, sizeof(size), idle) || size > kLongest) {
    return false;
  }
  frame.text.resize(size);
  return receive_all(socket, frame.text.data(), frame.text.size(), idle);
}

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json to_json(const ProgressEvent& event) {
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
  return json;
}

ProgressEvent to_event(const Json& json) {
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

Json to_json(ErrorCode code, const std::string& text) {
  return {{"code", static_cast<int>(code)}, {"text", text}};
}

/// The Error again; its text begins with "[where] ".
[[noreturn]] void throw_failure(const Json& json) {
  const auto code = static_cast<ErrorCode>(json.at("code").get<int>());
  const auto text = json.at("text").get<std::string>();
  const size_t end = text.find("] ");
  if (!text.starts_with("[") || end == std::string::npos) {
    throw Error(code, "text", text);
  }
  throw Error(code, text.substr(1, end - 1), text.substr(end + 2));
}

}  // namespace

struct Wall::Spot {
  bool behind = false;
  int depth = 0;
  Part part = Part::load;
  char where[512] = {};
  char tokenizer[1024] = {};
  char chat_template[1024] = {};
  double left = kSeconds;  // of processor time, at the section's start
  double allowed = 0;
  double begun = 0;
  int64_t memory = 0;    // what the section may add
  bool by_user = false;  // the memory limit is --memory-limit
  int64_t memory_limit = 0;
};

namespace {

Wall::Spot* here = nullptr;  // set behind the wall only

}  // namespace

Wall::Section::Section(Part part, std::string_view where, size_t bytes) {
  if (!here || here->depth++ > 0) {
    return;
  }
  here->part = part;
  copy_text(here->where, where);
  here->allowed = std::min(here->left, kSeconds) + kSecondsASection +
      kSecondsAByte * double(bytes);
  const auto used = static_cast<int64_t>(pw_meter_used());
  here->memory = kMemory + memory_a_byte(part) * static_cast<int64_t>(bytes);
  int64_t limit = used + here->memory;
  here->by_user = here->memory_limit > 0 && here->memory_limit < limit;
  limit = here->by_user ? here->memory_limit : limit;
  pw_meter_limit(static_cast<uint64_t>(limit));
  here->begun = cpu_seconds();
  set_timer(here->allowed);
}

Wall::Section::~Section() {
  if (!here || --here->depth > 0) {
    return;
  }
  set_timer(0);
  here->left = here->allowed - (cpu_seconds() - here->begun);
}

void Wall::name_files(
    const std::string& tokenizer,
    const std::string& chat_template) {
  if (here) {
    copy_text(here->tokenizer, tokenizer);
    copy_text(here->chat_template, chat_template);
  }
}

namespace {

std::string answer(
    int socket,
    const Wall::Serve& serve,
    const std::string& request,
    char& kind) {
  const ProgressFn progress = [socket](const ProgressEvent& event) {
    return send_frame(socket, kProgress, dump(to_json(event)));
  };
  kind = kFailure;
  try {
    auto text = serve(request, progress);
    kind = kAnswer;
    return text;
  } catch (const Error& error) {
    return dump(to_json(error.code(), error.what()));
  } catch (const std::bad_alloc&) {
    return dump(to_json(ErrorCode::io, "[text] out of memory"));
  } catch (const std::exception& error) {
    return dump(to_json(ErrorCode::io, "[text] " + one_line(error.what())));
  }
}

/// Nothing of the parent's stays open here: a lock would stay locked.
void close_others(int socket) {
  const long most = ::sysconf(_SC_OPEN_MAX);
  for (int fd = 3; fd < std::clamp(most, 64L, 4096L); ++fd) {
    if (fd != socket) {
      ::close(fd);
    }
  }
}

[[noreturn]] void serve_behind(int socket, const Wall::Serve& serve) {
#ifdef __linux__
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
  for (const int number :
       {SIGPROF, SIGTERM, SIGXCPU, SIGSEGV, SIGBUS, SIGABRT}) {
    if (kSlower == 1 || number == SIGPROF) {
      std::signal(number, SIG_DFL);
    }
  }
  std::signal(SIGINT, SIG_IGN);  // the parent hears it, and closes the socket
  close_others(socket);
  pw_meter_on_passed([] { ::_exit(kMemoryPassed); });
  pw_on_refused_memory([] { ::_exit(kMemoryRefused); });
  Frame request;
  while (receive_frame(socket, request)) {
    char kind = kFailure;
    const auto text = answer(socket, serve, request.text, kind);
    if (!send_frame(socket, kind, text)) {
      break;
    }
  }
  ::_exit(0);
}

/// What to tell of a process that ended amid a request.
Error why_ended(int status, const Wall::Spot& spot) {
  const bool exited = WIFEXITED(status);
  const int number = exited ? WEXITSTATUS(status) : WTERMSIG(status);
  if ((exited && number == kMemoryRefused) || (!exited && number == SIGKILL)) {
    return {
        ErrorCode::io,
        "memory",
        "out of memory while text was read; close other programs"};
  }
  std::string what;
  if (exited && number == kMemoryPassed) {
    const int64_t most = spot.by_user ? spot.memory_limit : spot.memory;
    what = "takes more than " + std::to_string(most / kMiB) +
        " MiB of memory " + (spot.by_user ? "(--memory-limit) " : "");
  } else if (!exited && number == SIGPROF) {
    what =
        "takes more processor time than it has (3 s, and 4 s for each MB of "
        "text) ";
  } else {
    what = "nests too deeply or breaks its reader (" +
        std::string(exited ? "exit " : "signal ") + std::to_string(number) +
        ") ";
  }
  const auto where = one_line(spot.where);
  const char* const end =
      spot.by_user ? "; raise the limit" : "; it is damaged or made to do harm";
  switch (spot.part) {
    case Wall::Part::read:
      return {
          ErrorCode::corrupt, "data", where + " " + what + "to be read" + end};
    case Wall::Part::render:
      return {
          ErrorCode::corrupt,
          "chat template",
          one_line(spot.chat_template) + " " + what + "to render " + where +
              end};
    case Wall::Part::load:
    case Wall::Part::tokenize:
      break;
  }
  return {
      ErrorCode::corrupt,
      "tokenizer",
      one_line(spot.tokenizer) + " " + what +
          (spot.part == Wall::Part::load ? "to be loaded"
                                         : "to tokenize " + where) +
          end};
}

}  // namespace

Wall::Wall(Serve serve, int64_t memory_limit) {
  void* page = ::mmap(
      nullptr,
      sizeof(Spot),
      PROT_READ | PROT_WRITE,
      MAP_SHARED | MAP_ANONYMOUS,
      -1,
      0);
  if (page == MAP_FAILED) {
    throw io_error("text", "can't map memory for", "its process", errno);
  }
  spot_ = new (page) Spot;
  spot_->memory_limit = memory_limit;
  int sockets[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) != 0) {
    const int failed = errno;
    ::munmap(spot_, sizeof(Spot));
    throw io_error("text", "can't make a socket for", "its process", failed);
  }
#ifdef SO_NOSIGPIPE
  for (const int own : sockets) {
    const int on = 1;
    ::setsockopt(own, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof(on));
  }
#endif
  child_ = ::fork();
  if (child_ == 0) {
    here = spot_;
    ::close(sockets[0]);
    serve_behind(sockets[1], serve);
  }
  const int failed = errno;
  ::close(sockets[1]);
  socket_ = sockets[0];
  if (child_ < 0) {
    ::close(socket_);
    ::munmap(spot_, sizeof(Spot));
    throw io_error("text", "can't start", "its process", failed);
  }
}

Wall::~Wall() {
  finish(SIGKILL);
  ::munmap(spot_, sizeof(Spot));
}

void Wall::finish(int signal) {
  if (socket_ >= 0) {
    ::close(socket_);
    socket_ = -1;
  }
  if (child_ > 0) {
    ::kill(child_, signal);
    while (::waitpid(child_, nullptr, 0) < 0 && errno == EINTR) {
    }
    child_ = -1;
  }
}

std::string Wall::ask(std::string_view request, const ProgressFn& progress) {
  if (child_ < 0 || !send_frame(socket_, 'Q', request)) {
    throw_death();
  }
  try {
    Frame frame;
    ProgressEvent last{"data"};
    while (receive_frame(socket_, frame, [&] { report(progress, last); })) {
      if (frame.kind == kAnswer) {
        return std::move(frame.text);
      }
      const auto json = parse_json(frame.text, "the text's process");
      if (frame.kind == kFailure) {
        throw_failure(json);
      }
      last = to_event(json);
      report(progress, last);
    }
  } catch (const Error& error) {
    if (error.code() == ErrorCode::cancelled) {
      finish(SIGKILL);
    }
    throw;
  }
  throw_death();
}

void Wall::throw_death() {
  if (!death_) {
    int status = 0;
    if (child_ > 0) {
      ::close(socket_);
      socket_ = -1;
      while (::waitpid(child_, &status, 0) < 0 && errno == EINTR) {
      }
      child_ = -1;
    }
    death_ = why_ended(status, *spot_);
  }
  throw *death_;
}

}  // namespace pennyweight
