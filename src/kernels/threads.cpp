#include "kernels/threads.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "core/result.h"
#include "kernels/kernels.h"

namespace tessera::kernels {
namespace {

std::atomic<int64_t> threads_wanted{1};
thread_local bool inside_task = false;

void relax_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

struct Job {
  const std::function<void(int64_t)>& task;
  const int64_t count;
  std::atomic<int64_t> next{0};
  std::atomic<int> helpers{0};  // that have entered and not left; changed under the pool's mutex

  void work() {
    for (int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) task(i);
  }
};

// A piece of a product takes about as long as waking a thread, so both sides look again and again for this long
// before they sleep.
constexpr int kSpins = 4000;  // 40 ns each, about

template <typename Condition>
bool spin_until(const Condition& condition) {
  for (int i = 0; i < kSpins; ++i) {
    if (condition()) return true;
    relax_cpu();
  }
  return condition();
}

class Pool {
 public:
  ~Pool() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    work_ready_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

  void run(Job& job, int64_t helpers) {
    {
      std::lock_guard lock(mutex_);
      while (static_cast<int64_t>(threads_.size()) < helpers) threads_.emplace_back([this] { serve(); });
      for (int64_t i = 0; i < helpers; ++i) queue_.push_back(&job);
      queued_ = queue_.size();
      if (sleeping_ > 0) work_ready_.notify_all();
    }
    inside_task = true;
    job.work();
    inside_task = false;
    std::unique_lock lock(mutex_);
    std::erase(queue_, &job);
    queued_ = queue_.size();
    lock.unlock();
    if (spin_until([&] { return job.helpers == 0; })) return;
    lock.lock();
    helper_left_.wait(lock, [&] { return job.helpers == 0; });
  }

 private:
  void serve() {
    inside_task = true;
    while (Job* job = take()) {
      job->work();
      // The last touch of the job: its owner may be gone as soon as the count is zero.
      std::lock_guard lock(mutex_);
      if (--job->helpers == 0) helper_left_.notify_all();
    }
  }

  // Waits for a job; null when the pool ends.
  Job* take() {
    spin_until([&] { return queued_ > 0 || stopping_; });
    std::unique_lock lock(mutex_);
    ++sleeping_;
    work_ready_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    --sleeping_;
    if (stopping_) return nullptr;
    Job* job = queue_.front();
    queue_.pop_front();
    queued_ = queue_.size();
    ++job->helpers;
    return job;
  }

  std::mutex mutex_;
  std::condition_variable work_ready_, helper_left_;
  std::deque<Job*> queue_;
  std::atomic<size_t> queued_{0};  // size of queue_, to look at without the mutex
  int sleeping_ = 0;
  std::vector<std::thread> threads_;
  std::atomic<bool> stopping_ = false;
};

Pool& pool() {
  static Pool instance;
  return instance;
}

}  // namespace

void set_kernel_threads(int64_t threads) {
  TESSERA_REQUIRE(threads >= 1 && threads <= 1024, "kernel threads: got {}, expected 1 to 1024", threads);
  threads_wanted = threads;
  // What is left to torch is small: its own threads would only spin beside ours.
  at::set_num_threads(1);
}
int64_t kernel_threads() {
  return threads_wanted;
}

void parallel(int64_t count, const std::function<void(int64_t)>& task) {
  const int64_t threads = inside_task ? 1 : std::min(kernel_threads(), count);
  if (threads <= 1) {
    for (int64_t i = 0; i < count; ++i) task(i);
    return;
  }
  Job job{task, count};
  pool().run(job, threads - 1);
}

void parallel_ranges(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& task) {
  const int64_t pieces = std::clamp<int64_t>(count / std::max<int64_t>(grain, 1), 1, kernel_threads());
  if (pieces == 1) return task(0, count);
  parallel(pieces, [&](int64_t i) { task(count * i / pieces, count * (i + 1) / pieces); });
}

}  // namespace tessera::kernels
