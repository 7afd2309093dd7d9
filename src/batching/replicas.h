// Several schedulers behind one: requests are spread over replicas that attend to different requests, each with
// a queue and a cache of its own, and take their steps together.
//
// A new request goes where the fewest tokens are claimed, counting what its own prompt would have to compute
// there: a replica that knows the beginning of the prompt wins unless it is busier by more than that.
// Threads: one at a time.
#pragma once

#include <memory>
#include <unordered_map>

#include "batching/scheduler.h"

namespace tessera::batching {

class Replicas {
 public:
  Replicas(const SchedulerOptions& of_each, int64_t count);
  int64_t count() const { return std::ssize(schedulers_); }
  const Scheduler& at(int64_t replica) const { return *schedulers_[static_cast<size_t>(replica)]; }

  // Where a request is, or would go.
  int64_t replica_of(RequestId id) const { return homes_.at(id).replica; }
  int64_t choose(const Submission& submission) const;

  // As those of Scheduler, for the request's replica.
  Status submit(Submission submission);
  void propose(RequestId id, int64_t drafts) { home(id).propose(id, drafts); }
  void append_tokens(RequestId id, std::span<const int64_t> tokens) { home(id).append_tokens(id, tokens); }
  bool finish(RequestId id);
  std::span<const BlockId> blocks_of(RequestId id) const { return at(replica_of(id)).blocks_of(id); }
  int64_t reused_tokens(RequestId id) const { return at(replica_of(id)).reused_tokens(id); }

  // For all replicas.
  std::vector<Step> next_steps();  // one for each
  std::vector<RequestId> expired(double now) const;
  void reset();
  void drop_tier(int64_t tier);
  bool idle() const;
  ReuseCounters reuse() const;
  int64_t num_running() const { return sum(&Scheduler::num_running); }
  int64_t num_waiting() const { return sum(&Scheduler::num_waiting); }
  int64_t blocks_in_use() const { return sum(&Scheduler::blocks_in_use); }

 private:
  struct Home {
    int64_t replica = 0, claim = 0;  // tokens that it may grow to
  };
  Scheduler& home(RequestId id) { return *schedulers_[static_cast<size_t>(replica_of(id))]; }
  int64_t sum(int64_t (Scheduler::*figure)() const) const;

  std::vector<std::unique_ptr<Scheduler>> schedulers_;
  std::vector<int64_t> claims_;
  std::unordered_map<RequestId, Home> homes_;
};

}  // namespace tessera::batching
