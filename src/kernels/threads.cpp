#include "kernels/threads.h"

#include <omp.h>

#include <atomic>
#include <cstdlib>
#include <mutex>

namespace pennyweight::kernels {

namespace {

int requested_threads() {
  const char* text = std::getenv("PENNYWEIGHT_THREADS");
  const int count = text ? std::atoi(text) : 0;
  return count > 0 ? count : omp_get_max_threads();
}

}  // namespace

int thread_count() {
  // OpenMP keeps the number per calling thread, and oneDNN asks OpenMP for
  // it, so each thread that calls kernels is told once.
  thread_local const int count = [] {
    if (omp_in_parallel()) {
      return 1;
    }
    static const int requested = requested_threads();
    omp_set_num_threads(requested);
    return requested;
  }();
  return omp_in_parallel() ? 1 : count;
}

namespace detail {

void run_tasks(int64_t tasks, int threads, TaskFn call, void* context) {
  std::atomic<bool> failed{false};
  std::mutex mutex;
  std::exception_ptr error;
// monotonic: else a runtime may give a thread later tasks before earlier ones.
#pragma omp parallel for num_threads(threads) schedule(monotonic : dynamic, 1)
  for (int64_t task = 0; task < tasks; ++task) {
    if (failed.load(std::memory_order_relaxed)) {
      continue;
    }
    try {
      call(context, task);
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex);
      if (!failed.exchange(true)) {
        error = std::current_exception();
      }
    }
  }
  if (error) {
    std::rethrow_exception(error);
  }
}

}  // namespace detail

}  // namespace pennyweight::kernels
