// Work on its way from gRPC's threads to the backend's. After close() everything that waits is dropped, and
// what comes later refused. Threads: any.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <mutex>

namespace tessera::kserve {

class Inbox : public std::enable_shared_from_this<Inbox> {
 public:
  using Work = std::function<void()>;
  // `post` runs one piece of work on the backend's thread, or never once that thread has ended.
  explicit Inbox(std::function<void(Work)> post) : post_(std::move(post)) {}

  // False when it is closed; then the work is never run.
  bool put(Work work) {
    {
      std::lock_guard lock(mutex_);
      if (closed_) return false;
      waiting_.push_back(std::move(work));
    }
    post_([self = shared_from_this()] { self->run_one(); });
    return true;
  }

  void close() {
    std::deque<Work> dropped;  // destroyed without the lock
    std::lock_guard lock(mutex_);
    closed_ = true;
    dropped.swap(waiting_);
  }

 private:
  void run_one() {
    Work work;
    {
      std::lock_guard lock(mutex_);
      if (waiting_.empty()) return;
      work = std::move(waiting_.front());
      waiting_.pop_front();
    }
    work();
  }

  std::function<void(Work)> post_;
  std::mutex mutex_;
  std::deque<Work> waiting_;
  bool closed_ = false;
};

}  // namespace tessera::kserve
