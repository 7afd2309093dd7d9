// The order in which operations of one group run: first started, first run, one at a time. A synchronous call
// runs on the caller's thread when nothing is before it; asynchronous ones run on a thread that is started at
// the first need. When nothing else runs, that thread does `idle_work` (moving left-over sends), which gives
// way at once to an operation.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "comm/group.h"

namespace tessera::comm {

class OperationQueue {
 public:
  struct IdleWork {
    std::function<bool()> exists;
    std::function<void(const std::atomic<bool>& give_way)> run;
    std::function<void()> wake;  // makes run() look at give_way
  };
  using Body = std::function<Status()>;

  // An operation under way; may be waited for after the queue is gone.
  class Job {
   public:
    explicit Job(Body body) : body_(std::move(body)) {}
    Status wait();
    bool done() const;
    void run();

   private:
    Body body_;
    mutable std::mutex mutex_;
    std::condition_variable finished_;
    bool done_ = false;
    Status status_;
  };

  explicit OperationQueue(IdleWork idle) : idle_(std::move(idle)) {}
  // Runs what is queued to its end; idle work is dropped.
  ~OperationQueue();

  Status run(const Body& body);
  std::shared_ptr<Job> start(Body body);

 private:
  void work();
  bool may_idle() const;
  void start_thread();

  IdleWork idle_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Job>> queue_;
  bool running_ = false, idling_ = false, stop_ = false;
  std::atomic<bool> give_way_{false};
  std::thread thread_;
};

}  // namespace tessera::comm
