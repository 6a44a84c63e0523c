#include "cli/last_words.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <new>
#include <system_error>

#include "core/error.h"
#include "core/files/temporaries.h"
#include "core/process.h"
#include "core/rust_abi.h"

namespace pennyweight::cli {

namespace {

constexpr int kIo = 5;
constexpr int kInternal = 1;
constexpr const char* kNoMemory =
    "[memory] out of memory: the system gives this process no more; close "
    "other programs, or raise its limit (ulimit -v)";

std::atomic<pid_t> process{0};  // 0: nothing is installed
std::atomic<bool> in_json{false};
std::atomic<bool> memory_was_refused{false};

// The thread that ends the process, by the address of its own `here`.
thread_local char here;
std::atomic<char*> speaker{nullptr};
std::atomic<bool> said{false};
std::atomic<int> ending_code{kIo};

// Address space to end with: what cleans up needs some.
constexpr size_t kReserve = size_t{8} << 20;
std::atomic<void*> reserve{nullptr};

void open_reserve() {
  if (void* held = reserve.exchange(nullptr)) {
    ::munmap(held, kReserve);
  }
}

bool first_to_end() {
  char* nobody = nullptr;
  if (speaker.compare_exchange_strong(nobody, &here) || nobody == &here) {
    return true;
  }
  // Another thread is about to end the process; should it wait for this one,
  // this one ends it.
  ::sleep(5);
  remove_temporaries();
  ::_exit(ending_code);
}

void put(int fd, const char* text) {
  for (size_t left = std::strlen(text); left > 0;) {
    const ssize_t done = ::write(fd, text, left);
    if (done <= 0) {
      return;
    }
    text += done;
    left -= static_cast<size_t>(done);
  }
}

void put_event(const char* name, const char* line) {
  put(STDOUT_FILENO, "{\"event\":\"error\",\"code\":\"");
  put(STDOUT_FILENO, name);
  put(STDOUT_FILENO, "\",\"message\":\"");
  for (; *line; ++line) {
    const char plain[2] = {*line == '"' || *line == '\\' ? '\'' : *line, '\0'};
    put(STDOUT_FILENO, plain);
  }
  put(STDOUT_FILENO, "\"}\n");
}

// Without C++'s memory: there may be none.
[[noreturn]] void end_now(int code, const char* name, const char* line) {
  if (process != ::getpid()) {
    ::_exit(code);  // A fork's parent says what has become of it.
  }
  if (first_to_end() && !said.exchange(true)) {
    ending_code = code;
    open_reserve();
    ::close(STDIN_FILENO);  // Folders are read with this descriptor.
    remove_temporaries();
    if (in_json) {
      put_event(name, line);
    }
    put(STDERR_FILENO, ::isatty(STDERR_FILENO) ? "\r\033[K" : "");
    put(STDERR_FILENO, "error: ");
    put(STDERR_FILENO, line);
    put(STDERR_FILENO, "\n");
  }
  ::_exit(ending_code);
}

void end_without_memory() {
  end_now(kIo, "io", kNoMemory);
}

void on_terminate() {
  try {
    const auto words = last_words(std::current_exception());
    end_now(words.code, words.name.c_str(), words.line.c_str());
  } catch (...) {
    end_without_memory();  // Only the text of another reason can't be made.
  }
}

// The first failure opens the reserve for those who clean up after it.
void on_refused_memory() {
  memory_was_refused = true;
  open_reserve();
  throw std::bad_alloc();
}

// What calls exit() but main has said why by itself: OpenMP, for instance.
void on_exit() {
  if (process == ::getpid() && speaker != &here) {
    end_now(
        kIo,
        "io",
        "[system] a library ended the run for want of memory or threads; close "
        "other programs, or set OMP_NUM_THREADS lower");
  }
}

// A library that does not look whether it was given memory writes to a null
// pointer. Any other fault is a bug of ours, and the system's to report.
[[maybe_unused]] void on_fault(int signal, siginfo_t* info, void*) {
  constexpr uintptr_t kFirstPages = 1 << 16;
  if (reinterpret_cast<uintptr_t>(info->si_addr) < kFirstPages &&
      (memory_was_refused || !has_address_space(kReserve))) {
    end_without_memory();
  }
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

extern "C" void on_fatal_signal(int signal) {
  // What is interrupted may hold the heap's lock, which listing a folder takes
  // on macOS, and which a damaged heap never gives back. The alarm ends a wait.
  std::signal(SIGALRM, [](int) { _exit(kInternal); });
  ::alarm(10);
  if (signal == SIGBUS) {
    end_now(
        kIo,
        "io",
        "[read] a mapped file can't be read any more: it was cut short or its "
        "disk failed; run the command again with whole files");
  }
  if (signal == SIGXCPU) {
    end_now(
        kIo,
        "io",
        "[limits] the limit of processor time is reached; raise it (ulimit "
        "-t)");
  }
  // The C library says by an abort alone what was refused to itself.
  if (memory_was_refused || !has_address_space(kReserve)) {
    end_without_memory();
  }
  end_now(
      kInternal,
      "internal",
      "[internal] a library gave up; this is a bug in pennyweight, please "
      "report it");
}

// The stack of the first thread grows as it is used, and where the address
// space is spent by then, that is a fault that nothing can catch. Apart from
// its caller, whose frame must not be this large.
constexpr size_t kStack = size_t{1} << 20;
__attribute__((noinline)) void claim_stack() {
  volatile char deep[kStack];
  deep[0] = 0;
  (void)deep[0];
}

__attribute__((noinline)) bool may_claim_stack() {
  rlimit limit{};
  return ::getrlimit(RLIMIT_STACK, &limit) == 0 && limit.rlim_cur >= 2 * kStack;
}

}  // namespace

int exit_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
      return 2;
    case ErrorCode::not_found:
      return 3;
    case ErrorCode::corrupt:
      return 4;
    case ErrorCode::io:
      return 5;
    case ErrorCode::not_supported:
      return 6;
    case ErrorCode::numeric:
      return 7;
    case ErrorCode::cancelled:
      return 130;
  }
  return 1;
}

LastWords last_words(std::exception_ptr thrown) {
  try {
    if (thrown) {
      std::rethrow_exception(thrown);
    }
  } catch (const Error& error) {
    const int code = exit_code(error.code());
    return {code, std::string(error_code_name(error.code())), error.what()};
  } catch (const std::bad_alloc&) {
    return {kIo, "io", kNoMemory};
  } catch (const std::filesystem::filesystem_error& error) {
    // A folder without permission, a loop of links: the system's word on it.
    return {kIo, "io", "[files] " + one_line(error.what())};
  } catch (const std::system_error& error) {
    return {kIo, "io", "[system] " + one_line(error.what())};
  } catch (const std::exception& error) {
    // MLX carries what its threads throw as text.
    if (std::strstr(error.what(), "bad_alloc")) {
      return {kIo, "io", kNoMemory};
    }
    return {
        kInternal,
        "internal",
        "[internal] " + one_line(error.what()) +
            "; this is a bug in pennyweight, please report it"};
  } catch (...) {
  }
  return {
      kInternal,
      "internal",
      "[internal] ended without a reason; this is a bug in pennyweight, please "
      "report it"};
}

void install_last_words() {
  if (process.exchange(::getpid()) == ::getpid()) {
    return;
  }
  if (!has_address_space(kReserve + 2 * kStack)) {
    end_without_memory();
  }
  if (may_claim_stack()) {
    claim_stack();
  }
  void* held =
      ::mmap(nullptr, kReserve, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  reserve = held == MAP_FAILED ? nullptr : held;
  std::set_terminate(on_terminate);
  std::set_new_handler(on_refused_memory);
  pw_on_refused_memory(end_without_memory);
  std::atexit(on_exit);
  for (const int signal : {SIGABRT, SIGBUS, SIGXCPU}) {
    struct sigaction action {};
    action.sa_handler = on_fatal_signal;
    ::sigaction(signal, &action, nullptr);
  }
#ifndef __SANITIZE_ADDRESS__  // which tells more of a fault
  struct sigaction fault {};
  fault.sa_sigaction = on_fault;
  fault.sa_flags = SA_SIGINFO;
  ::sigaction(SIGSEGV, &fault, nullptr);
#endif
}

void end_for_want_of_threads() {
  if (process == ::getpid()) {
    end_now(
        kIo,
        "io",
        "[threads] the system starts no more threads for this process; set "
        "OMP_NUM_THREADS lower, or raise its limits (ulimit -u, ulimit -v)");
  }
}

void say_last_words_in_json(bool json) {
  in_json = json;
}

void end_in_order(int code, const std::function<void()>& say) {
  first_to_end();
  ending_code = code;
  say();
  said = true;
}

}  // namespace pennyweight::cli
