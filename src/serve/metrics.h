// Figures of a server as Prometheus text under the names that vLLM gives them, so that existing dashboards
// work. Threads: any.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace tessera::serve {

class Histogram {
 public:
  explicit Histogram(std::vector<double> bounds);  // ascending upper bounds
  void observe(double value);
  // Lines `name_bucket{labels,le="..."} n`, `name_sum` and `name_count`.
  std::string render(const std::string& name, const std::string& labels) const;

 private:
  std::vector<double> bounds_;
  std::vector<int64_t> counts_;  // one more for +Inf
  double sum_ = 0;
};

// State of the scheduler at one moment.
struct Gauges {
  int64_t running = 0, waiting = 0;
  double kv_usage = 0;                          // used blocks / all blocks
  int64_t prefix_queries = 0, prefix_hits = 0;  // prompt tokens looked up in the cache, and found
  int64_t kv_demoted = 0, kv_promoted = 0;      // blocks that went to a slower tier, and that came back
  int64_t worker_losses = 0, retries = 0;       // ranks lost, and requests computed anew after a failed step
  int64_t prefills = 0, prefill_bytes = 0;      // prompts from prefill workers, and their keys and values
  int64_t prefill_failures = 0;                 // prompts that were to come from there and did not
};

class Metrics {
 public:
  Metrics();

  void count_prompt_tokens(int64_t tokens);
  void count_preemption();
  void count_guesses(int64_t made, int64_t right);
  void first_token(double queued_s, double since_arrival_s);
  void next_token(double since_last_s);
  void count_generated_token();
  void finished(const std::string& reason, double since_arrival_s);  // "stop", "length", "abort" or "error"

  std::string render(const std::string& model_name, const Gauges& gauges) const;

 private:
  mutable std::mutex mutex_;
  int64_t prompt_tokens_ = 0, generated_tokens_ = 0, preemptions_ = 0, guesses_ = 0, right_guesses_ = 0;
  std::map<std::string, int64_t> finished_;
  Histogram queue_time_, first_token_, per_token_, latency_;
};

}  // namespace tessera::serve
