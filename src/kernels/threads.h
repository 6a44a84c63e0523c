#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <type_traits>

namespace pennyweight::kernels {

/// Threads that a kernel uses: PENNYWEIGHT_THREADS where it is a positive
/// number, else OpenMP's choice (OMP_NUM_THREADS, else the cores that this
/// process may run on). 1 inside a parallel region.
int thread_count();

namespace detail {
using TaskFn = void (*)(void* context, int64_t task);
void run_tasks(int64_t tasks, int threads, TaskFn call, void* context);
}  // namespace detail

/// f(task) for task = 0 .. tasks - 1, on all threads: they begin in this order,
/// so that one may wait for those before it, and end in any. The first
/// exception stops what has not begun and is thrown again.
template <class F>
void parallel_tasks(int64_t tasks, F&& f) {
  const int threads = int(std::min<int64_t>(tasks, thread_count()));
  if (threads <= 1) {
    for (int64_t task = 0; task < tasks; ++task) {
      f(task);
    }
    return;
  }
  using Callee = std::remove_reference_t<F>;
  detail::run_tasks(
      tasks,
      threads,
      [](void* context, int64_t task) {
        (*static_cast<Callee*>(context))(task);
      },
      const_cast<std::remove_const_t<Callee>*>(&f));
}

/// f(begin, end) over 0 .. count in equal parts, one a thread, none smaller
/// than `grain`.
template <class F>
void parallel_ranges(int64_t count, int64_t grain, F&& f) {
  const int64_t most = count / std::max<int64_t>(1, grain);
  const int64_t parts = std::clamp<int64_t>(most, 1, thread_count());
  parallel_tasks(parts, [&](int64_t part) {
    const int64_t begin = count * part / parts;
    const int64_t end = count * (part + 1) / parts;
    if (begin < end) {
      f(begin, end);
    }
  });
}

}  // namespace pennyweight::kernels
