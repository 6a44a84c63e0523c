// The program. What only a program can have stands here: its hold on the whole
// process from before the first constructor, and a function of the C library's
// in its own version. A library in another's process (python/) has neither.

#include "cli/run.h"

// AddressSanitizer has a pthread_create of its own, and begins first.
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)

#include <dlfcn.h>
#include <pthread.h>

#include "cli/last_words.h"

// Before the constructors of all libraries, which may want for memory already.
__attribute__((section(".preinit_array"), used)) void (*const first)() =
    pennyweight::cli::install_last_words;

// In front of the C library's, for all libraries of this process: OpenMP's
// answer to a thread that the system refuses is a line of its own and exit(1),
// Rust's is a panic.
extern "C" int pthread_create(
    pthread_t* thread,
    const pthread_attr_t* attributes,
    void* (*start)(void*),
    void* argument) noexcept {
  using Create =
      int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const auto create =
      reinterpret_cast<Create>(::dlsym(RTLD_NEXT, "pthread_create"));
  const int failed = create(thread, attributes, start, argument);
  if (failed != 0) {
    pennyweight::cli::end_for_want_of_threads();
  }
  return failed;
}

#endif

int main(int argc, char** argv) {
  return pennyweight::cli::run(argc, argv);
}
