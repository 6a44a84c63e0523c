#include "kernels/threads.h"

#include <atomic>
#include <cstdlib>
#include <thread>

namespace pennyweight::kernels {

namespace {

int requested_threads() {
  for (const char* name : {"PENNYWEIGHT_THREADS", "OMP_NUM_THREADS"}) {
    const char* text = std::getenv(name);
    if (const int count = text ? std::atoi(text) : 0; count > 0) {
      return count;
    }
  }
  return std::max(1, int(std::thread::hardware_concurrency()));
}

// 0 where nothing was threads_override.
std::atomic<int> threads_override{0};

thread_local bool task_runs = false;

}  // namespace

int thread_count() {
  static const int requested = requested_threads();
  if (task_runs) {
    return 1;
  }
  const int count = threads_override.load(std::memory_order_relaxed);
  return count > 0 ? count : requested;
}

void override_thread_count(int count) {
  threads_override = std::max(0, count);
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

}  // namespace pennyweight::kernels
