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

// 0 where nothing was overridden.
std::atomic<int> overridden{0};

thread_local bool task_runs = false;

}  // namespace

int thread_count() {
  // Asked of OpenMP before any product has told it to be alone.
  static const int requested = requested_threads();
  if (task_runs) {
    return 1;
  }
  const int count = overridden.load(std::memory_order_relaxed);
  return count > 0 ? count : requested;
}

void override_thread_count(int count) {
  overridden = std::max(0, count);
}

bool in_task() {
  return task_runs;
}

Task::Task() : before_(task_runs) {
  task_runs = true;
}

Task::~Task() {
  task_runs = before_;
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
    const Task own;
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
