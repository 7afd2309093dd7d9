// A worker's link with its launcher: a thread of its own follows the launcher's orders and gives signs of life,
// whatever the worker's main thread does meanwhile. A call of a new generation reaches the worker at once: the
// thread runs `interrupt`, which aborts what the main thread waits for.
//
// Threads: the main thread calls everything but the callbacks, which run on the liaison's thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "resilience/context.h"
#include "resilience/protocol.h"

namespace tessera::resilience {

class Liaison {
 public:
  struct Callbacks {
    std::function<void(const Error&)> interrupt;  // a new generation is called, or the launcher is gone
    std::function<std::string()> operation;       // under way in the main thread
  };
  static Result<std::unique_ptr<Liaison>> connect(const WorkerContext& context);
  ~Liaison();

  // From here on until the next generation is called. Runs interrupt at once if it has been called already.
  void attend(int64_t generation, Callbacks callbacks);
  void ignore();  // the callbacks are not run after this returns

  // The newest generation called, as soon as it is above `after`. Errors: deadline_exceeded; unavailable when
  // the launcher is gone; aborted when the job has ended with an error.
  struct Call {
    int64_t generation = 0;  // 0: the job has ended well
    std::string reason;
  };
  Result<Call> wait_call(int64_t after, Deadline deadline);
  // The plan of `generation`, or nothing when a newer one was called first.
  Result<std::optional<Plan>> wait_plan(int64_t generation);

  void progress(int64_t steps_done) { steps_done_ = steps_done; }
  bool stop_wanted() const { return stop_wanted_; }
  Store& store() { return *store_; }  // for the main thread
  std::shared_ptr<Store> shared_store() { return store_; }

 private:
  Liaison(std::shared_ptr<Store> mine, std::shared_ptr<Store> threads, int64_t worker, int64_t first_order);
  void follow();
  bool obey(const Order& order);
  void beat();
  void lose(const Error& error);
  bool settled(int64_t after) const { return failure_ || ended_ || called_.generation > after; }

  std::shared_ptr<Store> store_, thread_store_;
  const int64_t worker_;
  int64_t next_order_, beats_ = 0;
  std::atomic<int64_t> steps_done_ = 0;
  std::atomic<bool> stop_wanted_ = false, leaving_ = false;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Call called_;
  std::optional<Plan> plan_;
  std::optional<std::string> ended_;  // the order's text
  std::optional<Error> failure_;      // the launcher is gone

  std::mutex callbacks_mutex_;
  int64_t attended_ = 0;
  Callbacks callbacks_;
  std::thread thread_;
};

}  // namespace tessera::resilience
