#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <vector>

namespace pennyweight::kernels {

using TaskFn = void (*)(void* context, int64_t task);

/// The threads that help a caller with its tasks: one pool for all callers.
/// OpenMP keeps a pool for each of them, and once two hold more threads than
/// there are cores, its threads sleep after each piece of work, which costs
/// small models 6 % of their speed.
class ThreadPool {
 public:
  /// The process's own; never destroyed, since its threads run to the end.
  static ThreadPool& instance();

  /// Calls call(context, task) for task = 0 .. tasks - 1, in this order, on up
  /// to `threads` threads, the caller's among them. After an exception no more
  /// tasks begin, and the first one is thrown again.
  void run(int64_t tasks, int threads, TaskFn call, void* context);

 private:
  struct Job;

  void start_threads(int count);
  void serve();
  void wait_for_job(std::unique_lock<std::mutex>& lock);
  Job* open_job() const;

  std::mutex mutex_;
  std::condition_variable posted_, left_;
  std::vector<Job*> jobs_;
  std::atomic<uint32_t> posts_{0};
  int threads_ = 0;
  int asleep_ = 0;
};

}  // namespace pennyweight::kernels
