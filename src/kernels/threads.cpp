#include "kernels/threads.h"

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

struct Job {
  const std::function<void(int64_t)>& task;
  const int64_t count;
  std::atomic<int64_t> next{0};
  int helpers = 0;  // helpers that have entered and not left; guarded by the pool's mutex

  void work() {
    for (int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) task(i);
  }
};

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
    }
    work_ready_.notify_all();
    inside_task = true;
    job.work();
    inside_task = false;
    std::unique_lock lock(mutex_);
    std::erase(queue_, &job);
    helper_left_.wait(lock, [&] { return job.helpers == 0; });
  }

 private:
  void serve() {
    inside_task = true;
    std::unique_lock lock(mutex_);
    while (true) {
      work_ready_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (stopping_) return;
      Job* job = queue_.front();
      queue_.pop_front();
      ++job->helpers;
      lock.unlock();
      job->work();
      lock.lock();
      if (--job->helpers == 0) helper_left_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable work_ready_, helper_left_;
  std::deque<Job*> queue_;
  std::vector<std::thread> threads_;
  bool stopping_ = false;
};

Pool& pool() {
  static Pool instance;
  return instance;
}

}  // namespace

void set_kernel_threads(int64_t threads) {
  TESSERA_REQUIRE(threads >= 1 && threads <= 1024, "kernel threads: got {}, expected 1 to 1024", threads);
  threads_wanted = threads;
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
