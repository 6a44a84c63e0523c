#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/thread_pool.h"

namespace pennyweight::kernels {

/// No result may depend on the number of threads: it decides how many tasks run
/// at once, and never which sums are made in which order. A kernel works
/// differently inside a task, where it has no threads of its own, than outside
/// of one. So whether something is a task depends on shapes alone: work for
/// several tasks runs as tasks on a single thread, too.

/// Threads that a kernel uses: PENNYWEIGHT_THREADS or else OMP_NUM_THREADS
/// where it is a positive number, else the cores that this process may run on.
/// 1 inside a task.
int thread_count();

/// For tests and benchmarks: sets that number for all threads from now on; with
/// 0 it is as above again.
void override_thread_count(int count);

/// Whether the caller runs inside a task.
bool in_task();

/// The calling thread is in a task as long as this lives.
class Task {
 public:
  Task();
  ~Task();
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;

 private:
  bool before_;
};

/// Calls f(task) for task = 0 .. tasks - 1 on all threads. Tasks begin in this
/// order, so that one may wait for those before it, and end in any. After an
/// exception no more tasks begin, and the first one is thrown again. A single
/// call is no task: it may use all threads itself.
template <class F>
void parallel_tasks(int64_t tasks, F&& f) {
  if (tasks == 1) {
    f(int64_t{0});
    return;
  }
  const int threads = int(std::min<int64_t>(tasks, thread_count()));
  if (threads <= 1) {
    const Task alone;
    for (int64_t task = 0; task < tasks; ++task) {
      f(task);
    }
    return;
  }
  using Callee = std::remove_reference_t<F>;
  ThreadPool::instance().run(
      tasks,
      threads,
      [](void* context, int64_t task) {
        (*static_cast<Callee*>(context))(task);
      },
      const_cast<std::remove_const_t<Callee>*>(&f));
}

/// Calls f(begin, end) for equal parts of 0 .. count, one for each thread and
/// none smaller than `grain`. What f makes may not depend on where the parts
/// begin. They are tasks unless all of the work is too small for two.
template <class F>
void parallel_ranges(int64_t count, int64_t grain, F&& f) {
  const int64_t most = count / std::max<int64_t>(1, grain);
  if (most <= 1) {
    if (count > 0) {
      f(int64_t{0}, count);
    }
    return;
  }
  const int64_t parts = std::min<int64_t>(most, thread_count());
  if (parts == 1) {
    const Task alone;
    f(int64_t{0}, count);
    return;
  }
  parallel_tasks(parts, [&](int64_t part) {
    f(count * part / parts, count * (part + 1) / parts);
  });
}

/// How many rows of `columns` values are worth a thread.
inline int64_t row_grain(int64_t columns) {
  constexpr int64_t kValues = 1 << 14;
  return 1 + kValues / std::max<int64_t>(1, columns);
}

/// Calls f(row) for all rows, each of `columns` values.
template <class F>
void parallel_rows(int64_t rows, int64_t columns, F&& f) {
  parallel_ranges(rows, row_grain(columns), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      f(row);
    }
  });
}

}  // namespace pennyweight::kernels
