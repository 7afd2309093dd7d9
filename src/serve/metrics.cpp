#include "serve/metrics.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>

namespace tessera::serve {

namespace {

constexpr double kWindowSeconds = 60;

// The bounds are vLLM's, so that panels that name a bound find it.
std::vector<double> first_token_bounds() {
  return {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
          1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
}
std::vector<double> token_bounds() {
  return {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80};
}
std::vector<double> request_bounds() {
  return {0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
}
std::vector<double> step_bounds() {
  return {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
}
// Triton's.
std::vector<double> first_response_bounds_ms() {
  return {100, 500, 2000, 5000};
}

std::vector<double> gap_bounds() {
  return {1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 1};
}

double microseconds(double seconds) {
  return std::round(seconds * 1e6);
}

}  // namespace

void RecentSeconds::observe(double seconds, Clock::time_point now) {
  if (ring_.size() < kCapacity) {
    ring_.push_back({now, seconds});
    return;
  }
  ring_[next_] = {now, seconds};
  next_ = (next_ + 1) % kCapacity;
}

std::array<double, 3> RecentSeconds::percentiles(double window_s, Clock::time_point now) const {
  std::vector<double> values;
  for (const Sample& sample : ring_)
    if (std::chrono::duration<double>(now - sample.at).count() <= window_s) values.push_back(sample.seconds);
  std::sort(values.begin(), values.end());
  auto at = [&](double part) {
    if (values.empty()) return 0.0;
    auto rank = static_cast<size_t>(std::ceil(part * static_cast<double>(values.size())));
    return values[std::max<size_t>(rank, 1) - 1];
  };
  return {at(0.5), at(0.95), at(0.99)};
}

Metrics::Metrics(int64_t max_length)
    : queue_time_(request_bounds()),
      first_token_(first_token_bounds()),
      per_token_(token_bounds()),
      latency_(request_bounds()),
      inference_time_(request_bounds()),
      prefill_time_(request_bounds()),
      decode_time_(request_bounds()),
      prompt_length_(one_two_five(max_length)),
      generated_length_(one_two_five(max_length)),
      max_tokens_(one_two_five(max_length)),
      step_tokens_(step_bounds()),
      first_token_ms_(first_response_bounds_ms()),
      step_gap_(gap_bounds()) {
  for (const char* reason : {"stop", "length", "abort", "error"}) counts_.finished[reason] = 0;
}

void Metrics::count_prompt_tokens(int64_t tokens) {
  std::lock_guard lock(mutex_);
  counts_.prompt_tokens += tokens;
}
void Metrics::count_preemption() {
  std::lock_guard lock(mutex_);
  ++counts_.preemptions;
}
void Metrics::count_guesses(int64_t made, int64_t right) {
  std::lock_guard lock(mutex_);
  guesses_ += made;
  right_guesses_ += right;
}
void Metrics::count_step(int64_t tokens) {
  std::lock_guard lock(mutex_);
  ++counts_.steps;
  counts_.step_tokens += tokens;
  step_tokens_.observe(static_cast<double>(tokens));
}
void Metrics::step_gap(double seconds) {
  std::lock_guard lock(mutex_);
  step_gap_.observe(seconds);
  counts_.gaps_s += seconds;
}
void Metrics::count_rejected(int64_t requests) {
  std::lock_guard lock(mutex_);
  rejected_ += requests;
}
void Metrics::first_token(double queued_s, double since_arrival_s) {
  std::lock_guard lock(mutex_);
  queue_time_.observe(queued_s);
  first_token_.observe(since_arrival_s);
  first_token_ms_.observe(since_arrival_s * 1e3);
  recent_first_token_.observe(since_arrival_s);
}
void Metrics::next_token(double since_last_s) {
  std::lock_guard lock(mutex_);
  per_token_.observe(since_last_s);
  recent_per_token_.observe(since_last_s);
}
void Metrics::count_generated_token() {
  std::lock_guard lock(mutex_);
  ++counts_.generated_tokens;
}

void Metrics::finished(const RequestSummary& request) {
  std::lock_guard lock(mutex_);
  ++counts_.finished[request.reason];
  latency_.observe(request.total_s);
  recent_latency_.observe(request.total_s);
  prompt_length_.observe(static_cast<double>(request.prompt_tokens));
  generated_length_.observe(static_cast<double>(request.generated_tokens));
  max_tokens_.observe(static_cast<double>(request.max_tokens));
  counts_.total_s += request.total_s;
  if (request.reason == "stop" || request.reason == "length") counts_.good_s += request.total_s;
  counts_.last_ended_ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
  counts_.queue_s += request.queue_s;
  counts_.prefill_s += request.prefill_s;
  counts_.decode_s += request.decode_s;
  if (!request.started()) return;
  inference_time_.observe(request.prefill_s + request.decode_s);
  prefill_time_.observe(request.prefill_s);
  decode_time_.observe(request.decode_s);
}

Metrics::Snapshot Metrics::snapshot() const {
  std::lock_guard lock(mutex_);
  Snapshot out = counts_;
  out.first_token = recent_first_token_.percentiles(kWindowSeconds);
  out.per_token = recent_per_token_.percentiles(kWindowSeconds);
  out.latency = recent_latency_.percentiles(kWindowSeconds);
  return out;
}

void Metrics::add_to(PrometheusText& text, const std::string& model_name, const Gauges& gauges) const {
  std::lock_guard lock(mutex_);
  PrometheusText::Labels labels = {{"model_name", model_name}, {"engine", "0"}};
  add_vllm(text, labels, gauges);
  add_vllm_histograms(text, labels);
  add_triton(text, model_name, gauges);
}

void Metrics::add_vllm(PrometheusText& text, const PrometheusText::Labels& labels, const Gauges& gauges) const {
  auto gauge = [&](const char* name, const char* help, double value) { text.gauge(name, help, labels, value); };
  auto counter = [&](const char* name, const char* help, int64_t value) {
    text.counter(name, help, labels, static_cast<double>(value));
  };
  gauge("vllm:num_requests_running", "Requests that hold KV blocks.", static_cast<double>(gauges.running));
  gauge("vllm:num_requests_waiting", "Requests in the queue.", static_cast<double>(gauges.waiting));
  gauge("vllm:kv_cache_usage_perc", "Used part of the KV cache; 1 is all of it.", gauges.kv_usage);
  gauge("vllm:gpu_cache_usage_perc", "The same under its former name.", gauges.kv_usage);
  counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the KV cache.", gauges.prefix_queries);
  counter("vllm:prefix_cache_hits_total", "Prompt tokens found there.", gauges.prefix_hits);
  counter("vllm:gpu_prefix_cache_queries_total", "The same under its former name.", gauges.prefix_queries);
  counter("vllm:gpu_prefix_cache_hits_total", "The same under its former name.", gauges.prefix_hits);
  counter("tessera:kv_blocks_demoted_total", "KV blocks that went to host memory or disk.", gauges.kv_demoted);
  counter("tessera:kv_blocks_promoted_total", "KV blocks that came back from there.", gauges.kv_promoted);
  counter("tessera:worker_losses_total", "Worker processes that were lost.", gauges.worker_losses);
  counter("tessera:request_retries_total", "Requests computed anew after a failed step.", gauges.retries);
  counter("tessera:prefills_received_total", "Prompts computed by prefill workers.", gauges.prefills);
  counter("tessera:prefill_bytes_received_total", "Keys and values that came from there.",
          gauges.prefill_bytes);
  counter("tessera:prefills_failed_total", "Prompts computed here because a prefill worker was lost.",
          gauges.prefill_failures);
  counter("vllm:num_preemptions_total", "Requests that lost their KV blocks for a while.", counts_.preemptions);
  counter("vllm:spec_decode_num_draft_tokens_total", "Tokens guessed ahead.", guesses_);
  counter("vllm:spec_decode_num_accepted_tokens_total", "Guesses that were right.", right_guesses_);
  counter("vllm:prompt_tokens_total", "Prompt tokens of requests that began.", counts_.prompt_tokens);
  counter("vllm:generation_tokens_total", "Generated tokens.", counts_.generated_tokens);
  for (const auto& [reason, count] : counts_.finished) {
    auto own = labels;
    own.emplace_back("finished_reason", reason);
    text.counter("vllm:request_success_total", "Requests that ended, by reason.", own,
                 static_cast<double>(count));
  }
}

void Metrics::add_vllm_histograms(PrometheusText& text, const PrometheusText::Labels& labels) const {
  auto add = [&](const char* name, const char* help, const Histogram& values) {
    text.histogram(name, help, labels, values);
  };
  add("vllm:iteration_tokens_total", "Tokens of one step.", step_tokens_);
  add("vllm:request_prompt_tokens", "Prompt tokens of one request.", prompt_length_);
  add("vllm:request_generation_tokens", "Generated tokens of one request.", generated_length_);
  add("vllm:request_params_max_tokens", "The most tokens that one request asked for.", max_tokens_);
  add("vllm:request_queue_time_seconds", "From arrival to the first step.", queue_time_);
  add("vllm:time_to_first_token_seconds", "From arrival to the first token.", first_token_);
  add("vllm:time_per_output_token_seconds", "Between two tokens of one answer.", per_token_);
  add("vllm:inter_token_latency_seconds", "The same under its newer name.", per_token_);
  add("vllm:request_prefill_time_seconds", "From the first step to the first token.", prefill_time_);
  add("vllm:request_decode_time_seconds", "From the first token to the last.", decode_time_);
  add("vllm:request_inference_time_seconds", "From the first step to the last token.", inference_time_);
  add("vllm:e2e_request_latency_seconds", "From arrival to the end.", latency_);
  add("tessera:step_gap_seconds", "From the end of a forward pass to the next one, while there is work.",
      step_gap_);
}

void Metrics::add_triton(PrometheusText& text, const std::string& model_name, const Gauges& gauges) const {
  PrometheusText::Labels labels = {{"model", model_name}, {"version", "1"}};
  auto counter = [&](const char* name, const char* help, double value) {
    text.counter(name, help, labels, value);
  };
  auto succeeded = static_cast<double>(counts_.finished.at("stop") + counts_.finished.at("length"));
  counter("nv_inference_request_success", "Requests that ended well.", succeeded);
  for (auto [reason, count] :
       {std::pair("REJECTED", rejected_), std::pair("CANCELED", counts_.finished.at("abort")),
        std::pair("BACKEND", counts_.finished.at("error")), std::pair("OTHER", int64_t{0})}) {
    auto own = labels;
    own.emplace_back("reason", reason);
    text.counter("nv_inference_request_failure", "Requests that did not, by reason.", own,
                 static_cast<double>(count));
  }
  counter("nv_inference_count", "Requests that were computed.", succeeded);
  counter("nv_inference_exec_count", "Steps of the engine.", static_cast<double>(counts_.steps));
  counter("nv_inference_request_duration_us", "Sum of all requests, from arrival to the end.",
          microseconds(counts_.total_s));
  counter("nv_inference_queue_duration_us", "Sum of all waits for the first step.",
          microseconds(counts_.queue_s));
  counter("nv_inference_compute_infer_duration_us", "Sum of all times from the first step to the last token.",
          microseconds(counts_.prefill_s + counts_.decode_s));
  for (const char* part : {"nv_inference_compute_input_duration_us", "nv_inference_compute_output_duration_us"})
    counter(part, "Part of the time in compute_infer; always 0.", 0);
  text.gauge("nv_inference_pending_request_count", "Requests in the queue.", labels,
             static_cast<double>(gauges.waiting));
  text.histogram("nv_inference_first_response_histogram_ms", "From arrival to the first token.", labels,
                 first_token_ms_);
}

void add_machine(PrometheusText& text) {
  double page = static_cast<double>(sysconf(_SC_PAGESIZE)),
         total = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * page;
  text.gauge("nv_cpu_memory_total_bytes", "Memory of this machine.", {}, total);
  text.gauge("nv_cpu_memory_used_bytes", "Memory in use.", {},
             total - static_cast<double>(sysconf(_SC_AVPHYS_PAGES)) * page);
}

}  // namespace tessera::serve
