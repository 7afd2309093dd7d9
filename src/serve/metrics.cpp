#include "serve/metrics.h"

#include <fmt/format.h>

#include <algorithm>

namespace tessera::serve {

namespace {

std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

std::string head(const std::string& name, const char* type, const char* help) {
  return fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

template <class Number>
std::string value(const std::string& name, const char* type, const char* help, const std::string& labels,
                  Number number) {
  return head(name, type, help) + fmt::format("{}{{{}}} {}\n", name, labels, number);
}

std::vector<double> latency_bounds() {
  return {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80};
}
std::vector<double> token_bounds() {
  return {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5};
}
std::vector<double> request_bounds() {
  return {0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960};
}

}  // namespace

Histogram::Histogram(std::vector<double> bounds) : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}

void Histogram::observe(double value) {
  auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  ++counts_[static_cast<size_t>(bucket)];
  sum_ += value;
}

std::string Histogram::render(const std::string& name, const std::string& labels) const {
  std::string text;
  int64_t cumulative = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    cumulative += counts_[i];
    std::string bound = i < bounds_.size() ? fmt::format("{}", bounds_[i]) : "+Inf";
    text += fmt::format("{}_bucket{{{},le=\"{}\"}} {}\n", name, labels, bound, cumulative);
  }
  return text + fmt::format("{0}_sum{{{1}}} {2}\n{0}_count{{{1}}} {3}\n", name, labels, sum_, cumulative);
}

Metrics::Metrics()
    : finished_{{"stop", 0}, {"length", 0}, {"abort", 0}, {"error", 0}},
      queue_time_(request_bounds()),
      first_token_(latency_bounds()),
      per_token_(token_bounds()),
      latency_(request_bounds()) {}

void Metrics::count_prompt_tokens(int64_t tokens) {
  std::lock_guard lock(mutex_);
  prompt_tokens_ += tokens;
}
void Metrics::count_preemption() {
  std::lock_guard lock(mutex_);
  ++preemptions_;
}
void Metrics::count_guesses(int64_t made, int64_t right) {
  std::lock_guard lock(mutex_);
  guesses_ += made;
  right_guesses_ += right;
}
void Metrics::first_token(double queued_s, double since_arrival_s) {
  std::lock_guard lock(mutex_);
  queue_time_.observe(queued_s);
  first_token_.observe(since_arrival_s);
}
void Metrics::next_token(double since_last_s) {
  std::lock_guard lock(mutex_);
  per_token_.observe(since_last_s);
}
void Metrics::count_generated_token() {
  std::lock_guard lock(mutex_);
  ++generated_tokens_;
}
void Metrics::finished(const std::string& reason, double since_arrival_s) {
  std::lock_guard lock(mutex_);
  ++finished_[reason];
  latency_.observe(since_arrival_s);
}

std::string Metrics::render(const std::string& model_name, const Gauges& gauges) const {
  std::lock_guard lock(mutex_);
  std::string labels = fmt::format("model_name=\"{}\"", escaped(model_name)), text;
  text += value("vllm:num_requests_running", "gauge", "Requests that hold KV blocks.", labels, gauges.running);
  text += value("vllm:num_requests_waiting", "gauge", "Requests in the queue.", labels, gauges.waiting);
  text += value("vllm:kv_cache_usage_perc", "gauge", "Used part of the KV cache; 1 is all of it.", labels,
                gauges.kv_usage);
  text += value("vllm:prefix_cache_queries_total", "counter", "Prompt tokens looked up in the KV cache.",
                labels, gauges.prefix_queries);
  text += value("vllm:prefix_cache_hits_total", "counter", "Prompt tokens found there.", labels,
                gauges.prefix_hits);
  text += value("tessera:kv_blocks_demoted_total", "counter", "KV blocks that went to host memory or disk.",
                labels, gauges.kv_demoted);
  text += value("tessera:kv_blocks_promoted_total", "counter", "KV blocks that came back from there.", labels,
                gauges.kv_promoted);
  text += value("tessera:worker_losses_total", "counter", "Worker processes that were lost.", labels,
                gauges.worker_losses);
  text += value("tessera:request_retries_total", "counter", "Requests computed anew after a failed step.",
                labels, gauges.retries);
  text += value("tessera:prefills_received_total", "counter", "Prompts computed by prefill workers.", labels,
                gauges.prefills);
  text += value("tessera:prefill_bytes_received_total", "counter", "Keys and values that came from there.",
                labels, gauges.prefill_bytes);
  text += value("tessera:prefills_failed_total", "counter",
                "Prompts computed here because a prefill worker was lost.", labels, gauges.prefill_failures);
  text += value("vllm:num_preemptions_total", "counter", "Requests that lost their KV blocks for a while.",
                labels, preemptions_);
  text +=
      value("vllm:spec_decode_num_draft_tokens_total", "counter", "Tokens guessed ahead.", labels, guesses_);
  text += value("vllm:spec_decode_num_accepted_tokens_total", "counter", "Guesses that were right.", labels,
                right_guesses_);
  text += value("vllm:prompt_tokens_total", "counter", "Prompt tokens of requests that began.", labels,
                prompt_tokens_);
  text += value("vllm:generation_tokens_total", "counter", "Generated tokens.", labels, generated_tokens_);
  text += head("vllm:request_success_total", "counter", "Requests that ended, by reason.");
  for (const auto& [reason, count] : finished_)
    text += fmt::format("vllm:request_success_total{{{},finished_reason=\"{}\"}} {}\n", labels, reason, count);
  auto histogram = [&](const std::string& name, const char* help, const Histogram& values) {
    text += head(name, "histogram", help) + values.render(name, labels);
  };
  histogram("vllm:request_queue_time_seconds", "From arrival to the first step.", queue_time_);
  histogram("vllm:time_to_first_token_seconds", "From arrival to the first token.", first_token_);
  histogram("vllm:time_per_output_token_seconds", "Between two tokens of one answer.", per_token_);
  histogram("vllm:e2e_request_latency_seconds", "From arrival to the last token.", latency_);
  return text;
}

}  // namespace tessera::serve
