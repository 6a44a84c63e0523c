#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <vector>

namespace pennyweight::kernels {

using TaskFn = void (*)(void* context, int64_t task);

/// The threads that run kernels' tasks beside the thread that has them to do:
/// one pool for all callers. OpenMP keeps a pool for each caller, and once two
/// of them hold more threads than there are cores, its threads sleep after
/// each piece of work, which costs small models 6 % of their speed.
class ThreadPool {
 public:
  /// The process's own; never destroyed, since its threads run to the end.
  static ThreadPool& instance();

  /// call(context, task) for task = 0 .. tasks - 1, begun in this order on up
  /// to `threads` threads, the caller's among them. The first exception stops
  /// what has not begun and is thrown again.
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
