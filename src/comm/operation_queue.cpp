#include "comm/operation_queue.h"

namespace tessera::comm {

Status OperationQueue::Job::wait() {
  std::unique_lock lock(mutex_);
  finished_.wait(lock, [this] { return done_; });
  return status_;
}

bool OperationQueue::Job::done() const {
  std::lock_guard lock(mutex_);
  return done_;
}

void OperationQueue::Job::run() {
  Status status = body_();
  std::lock_guard lock(mutex_);
  status_ = std::move(status);
  done_ = true;
  finished_.notify_all();
}

OperationQueue::~OperationQueue() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
    give_way_.store(true, std::memory_order_release);
    changed_.notify_all();
  }
  idle_.wake();
  if (thread_.joinable()) thread_.join();
}

bool OperationQueue::may_idle() const {
  return !give_way_.load(std::memory_order_relaxed) && idle_.exists();
}

void OperationQueue::start_thread() {
  if (!thread_.joinable()) thread_ = std::thread([this] { work(); });
}

Status OperationQueue::run(const Body& body) {
  std::unique_lock lock(mutex_);
  if (running_ || !queue_.empty()) {
    lock.unlock();
    return start(body)->wait();
  }
  running_ = true;  // from here on nobody overtakes
  if (idling_) {
    give_way_.store(true, std::memory_order_release);
    idle_.wake();
    changed_.wait(lock, [this] { return !idling_; });
    give_way_.store(stop_, std::memory_order_release);
  }
  lock.unlock();
  Status status = body();
  lock.lock();
  running_ = false;
  bool left_over = idle_.exists();
  if (left_over) start_thread();
  if (left_over || !queue_.empty()) changed_.notify_all();
  return status;
}

std::shared_ptr<OperationQueue::Job> OperationQueue::start(Body body) {
  auto job = std::make_shared<Job>(std::move(body));
  std::lock_guard lock(mutex_);
  queue_.push_back(job);
  start_thread();
  if (idling_) {
    give_way_.store(true, std::memory_order_release);
    idle_.wake();
  }
  changed_.notify_all();
  return job;
}

void OperationQueue::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return !running_ && (stop_ || !queue_.empty() || may_idle()); });
    if (!queue_.empty()) {
      std::shared_ptr<Job> job = std::move(queue_.front());
      queue_.pop_front();
      running_ = true;
      give_way_.store(stop_, std::memory_order_release);
      lock.unlock();
      job->run();
      lock.lock();
      running_ = false;
    } else if (stop_) {
      return;
    } else {
      idling_ = true;
      lock.unlock();
      idle_.run(give_way_);
      lock.lock();
      idling_ = false;
      changed_.notify_all();
    }
  }
}

}  // namespace tessera::comm
