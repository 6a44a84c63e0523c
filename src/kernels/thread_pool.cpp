#include "kernels/thread_pool.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "kernels/threads.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pennyweight::kernels {

namespace {

/// How long a thread looks for what it waits for before it sleeps: longer than
/// from one op of a block to the next, and short beside waking a thread.
constexpr std::chrono::microseconds kPatience{100};
constexpr int kLooks = 32;  // between two looks at the clock

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Whether `holds` came true while a thread was ready to look.
template <class Condition>
bool soon(const Condition& holds) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  do {
    for (int i = 0; i < kLooks; ++i) {
      if (holds()) {
        return true;
      }
      relax();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace

/// Stands on the stack of the thread that brought it. `places` and changes of
/// `helpers` are the pool's mutex's.
struct ThreadPool::Job {
  int64_t tasks;
  TaskFn call;
  void* context;
  int places;  // for more threads
  std::atomic<int> helpers{0};
  std::atomic<int64_t> next{0};
  std::mutex mutex{};
  std::exception_ptr error{};

  bool is_open() const {
    return places > 0 && next.load(std::memory_order_relaxed) < tasks;
  }

  void work() {
    const Task own;
    for (int64_t task; (task = next.fetch_add(1)) < tasks;) {
      try {
        call(context, task);
      } catch (...) {
        next = tasks;
        std::lock_guard lock(mutex);
        if (!error) {
          error = std::current_exception();
        }
      }
    }
  }
};

ThreadPool& ThreadPool::instance() {
  static auto& pool = *new ThreadPool;
  return pool;
}

void ThreadPool::start_threads(int count) {
  for (; threads_ < count; ++threads_) {
    std::thread([this] { serve(); }).detach();
  }
}

ThreadPool::Job* ThreadPool::open_job() const {
  for (Job* job : jobs_) {
    if (job->is_open()) {
      return job;
    }
  }
  return nullptr;
}

void ThreadPool::wait_for_job(std::unique_lock<std::mutex>& lock) {
  const uint32_t seen = posts_;
  const auto posted = [&] { return posts_ != seen; };
  lock.unlock();
  const bool came = soon(posted);
  lock.lock();
  if (!came) {
    ++asleep_;
    posted_.wait(lock, posted);
    --asleep_;
  }
}

void ThreadPool::serve() {
  std::unique_lock lock(mutex_);
  for (;;) {
    Job* job = open_job();
    if (job == nullptr) {
      wait_for_job(lock);
      continue;
    }
    --job->places;
    ++job->helpers;
    lock.unlock();
    job->work();
    lock.lock();
    if (--job->helpers == 0) {
      left_.notify_all();  // the job may be gone from here on
    }
  }
}

void ThreadPool::run(int64_t tasks, int threads, TaskFn call, void* context) {
  Job job{
      .tasks = tasks, .call = call, .context = context, .places = threads - 1};
  {
    std::lock_guard lock(mutex_);
    start_threads(job.places);
    jobs_.push_back(&job);
    ++posts_;
    if (asleep_ > 0) {
      posted_.notify_all();
    }
  }
  job.work();
  const auto alone = [&] { return job.helpers == 0; };
  {
    std::lock_guard lock(mutex_);
    std::erase(jobs_, &job);
  }
  if (!soon(alone)) {
    std::unique_lock lock(mutex_);
    left_.wait(lock, alone);
  }
  if (job.error) {
    std::rethrow_exception(job.error);
  }
}

}  // namespace pennyweight::kernels
