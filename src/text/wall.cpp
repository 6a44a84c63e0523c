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
#include "text/frames.h"
#include "text/rust_text.h"

namespace pennyweight {

namespace {

constexpr int kMemoryPassed = 71;  // exit codes behind the wall
constexpr int kMemoryRefused = 72;
constexpr int64_t kMiB = int64_t{1} << 20;

// A second of processor time is far more than any of these needs: templates
// render a message in 0.1 ms, tokenizers read more than 1 MB a second.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double kSlower = 5;
#else
constexpr double kSlower = 1;
#endif
constexpr double kRowSeconds = 3;
constexpr double kSecondsASection = 0.005 * kSlower;
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

/// Tokenizers are loaded and rows read at 20 MB a second and more, text is
/// tokenized at 1 MB.
double seconds_a_byte(Wall::Part part) {
  const bool quick = part == Wall::Part::load || part == Wall::Part::read;
  return (quick ? 4e-7 : 4e-6) * kSlower;
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

}  // namespace

struct Wall::Spot {
  int depth = 0;
  Part part = Part::load;
  char where[512] = {};
  char tokenizer[1024] = {};
  char chat_template[1024] = {};
  double left = kRowSeconds;  // of processor time, at the section's start
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
  here->allowed = std::min(here->left, kRowSeconds) + kSecondsASection +
      seconds_a_byte(part) * double(bytes);
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
    return send_frame(socket, Frame::kProgress, frame_text(event));
  };
  kind = Frame::kFailure;
  try {
    auto text = serve(request, progress);
    kind = Frame::kAnswer;
    return text;
  } catch (const Error& error) {
    return frame_text(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return frame_text(ErrorCode::io, "[text] out of memory");
  } catch (const std::exception& error) {
    return frame_text(ErrorCode::io, "[text] " + one_line(error.what()));
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
  // Sanitizers keep those by which they report; a stack that has run over is
  // the parent's to tell of.
  for (const int number :
       {SIGPROF, SIGSEGV, SIGTERM, SIGXCPU, SIGBUS, SIGABRT}) {
    if (kSlower == 1 || number == SIGPROF || number == SIGSEGV) {
      std::signal(number, SIG_DFL);
    }
  }
  std::signal(SIGINT, SIG_IGN);  // the parent hears it, and closes the socket
  close_others(socket);
  pw_meter_on_passed([] { ::_exit(kMemoryPassed); });
  pw_on_refused_memory([] { ::_exit(kMemoryRefused); });
  Frame request;
  while (receive_frame(socket, request)) {
    char kind = Frame::kFailure;
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
  if (child_ < 0 || !send_frame(socket_, Frame::kRequest, request)) {
    throw_death();
  }
  try {
    Frame frame;
    ProgressEvent last{"data"};
    while (receive_frame(socket_, frame, [&] { report(progress, last); })) {
      if (frame.kind == Frame::kAnswer) {
        return std::move(frame.text);
      }
      if (frame.kind == Frame::kFailure) {
        throw_failure(frame.text);
      }
      last = event_of(frame.text);
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
