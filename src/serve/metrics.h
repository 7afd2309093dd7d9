// Figures of one model as vLLM and Triton name them, so that existing dashboards work, and what the live page
// shows. Threads: any.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "core/clock.h"
#include "http/prometheus.h"

namespace tessera::serve {

// State of the scheduler at one moment, and its counts so far.
struct Gauges {
  int64_t running = 0, waiting = 0;
  double kv_usage = 0;                          // used blocks / all blocks
  int64_t prefix_queries = 0, prefix_hits = 0;  // prompt tokens looked up in the cache, and found
  int64_t kv_demoted = 0, kv_promoted = 0;      // blocks that went to a slower tier, and that came back
  int64_t worker_losses = 0, retries = 0;       // ranks lost, and requests computed anew after a failed step
  int64_t prefills = 0, prefill_bytes = 0;      // prompts from prefill workers, and their keys and values
  int64_t prefill_failures = 0;                 // prompts that were to come from there and did not
};

// One request that has ended. Times in seconds; those of phases that it did not reach are 0.
struct RequestSummary {
  int64_t id = 0, prompt_tokens = 0, generated_tokens = 0, cached_tokens = 0, max_tokens = 0;
  std::string reason;  // "stop", "length", "abort" or "error"
  std::string request_id, tenant;
  double queue_s = 0, prefill_s = 0, decode_s = 0;  // until the first step, then the first token, then the last
  double total_s = 0;                               // since its arrival

  bool started() const { return prefill_s > 0 || generated_tokens > 0; }
};

// Seconds of the last observations, for percentiles of now rather than of all times.
class RecentSeconds {
 public:
  void observe(double seconds, Clock::time_point now = Clock::now());
  // Of those not older than `window_s`: the values at 50, 95 and 99 %; zeros when there are none.
  std::array<double, 3> percentiles(double window_s, Clock::time_point now = Clock::now()) const;

 private:
  static constexpr size_t kCapacity = 4096;
  struct Sample {
    Clock::time_point at;
    double seconds;
  };
  std::vector<Sample> ring_;
  size_t next_ = 0;
};

class Metrics {
 public:
  explicit Metrics(int64_t max_length);

  void count_prompt_tokens(int64_t tokens);
  void count_preemption();
  void count_guesses(int64_t made, int64_t right);
  void count_step(int64_t tokens);
  void step_gap(double seconds);          // from the end of a forward pass to the next one, when there was work
  void count_rejected(int64_t requests);  // refused for want of room or time
  void first_token(double queued_s, double since_arrival_s);
  void next_token(double since_last_s);
  void count_generated_token();
  void finished(const RequestSummary& request);

  // Under "vllm:..." and, for Triton's dashboards, "nv_inference_...".
  void add_to(PrometheusText& text, const std::string& model_name, const Gauges& gauges) const;

  struct Snapshot {  // counts since the start; percentiles of the last minute
    int64_t prompt_tokens = 0, generated_tokens = 0, steps = 0, step_tokens = 0, preemptions = 0;
    std::map<std::string, int64_t> finished;
    double queue_s = 0, prefill_s = 0, decode_s = 0, total_s = 0;  // sums over all that ended
    double good_s = 0;                                             // total_s of those that ended well
    int64_t last_ended_ms = 0;                                     // since 1970
    double gaps_s = 0;                                             // sum over all steps, between the passes
    std::array<double, 3> first_token{}, per_token{}, latency{};
  };
  Snapshot snapshot() const;

 private:
  void add_vllm(PrometheusText& text, const PrometheusText::Labels& labels, const Gauges& gauges) const;
  void add_vllm_histograms(PrometheusText& text, const PrometheusText::Labels& labels) const;
  void add_triton(PrometheusText& text, const std::string& model_name, const Gauges& gauges) const;

  mutable std::mutex mutex_;
  Snapshot counts_;  // without the percentiles
  int64_t guesses_ = 0, right_guesses_ = 0, rejected_ = 0;
  Histogram queue_time_, first_token_, per_token_, latency_, inference_time_, prefill_time_, decode_time_;
  Histogram prompt_length_, generated_length_, max_tokens_, step_tokens_, first_token_ms_, step_gap_;
  RecentSeconds recent_first_token_, recent_per_token_, recent_latency_;
};

// Of the machine, under Triton's names nv_cpu_*.
void add_machine(PrometheusText& text);

}  // namespace tessera::serve
